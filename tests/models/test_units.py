"""The weights of a unit: in every network of the lab, a unit with zero outgoing weights has no effect."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.models import parameters, resnet, units
from plasticity_jax.training.gradient import forward
from plasticity_jax.training.remedies.interface import Network
from tests.support import treated
from tests.support.tiny import CONVOLVED, SHAPE

NETWORKS = {
    "mlp": models.build(spec.Model("mlp", 2, 6, "cifar", "none", "float32", "relu", 0.0, (), False), 4),
    "resnet": models.build(spec.Model("resnet", 1, 2, "cifar", "batch", "float32", "relu", 0.0, (), False), 4),
    "resnet_without_norm": models.build(
        spec.Model("resnet", 1, 2, "cifar", "none", "float32", "relu", 0.0, (), False), 4
    ),
    "crelu": models.build(spec.Model("resnet", 1, 2, "cifar", "none", "float32", "crelu", 0.0, (), False), 4),
    "bottleneck": resnet.ResNet(4, (1,), 2, "cifar", "batch", np.float32, block="bottleneck"),
    "wide_resnet": models.build(
        spec.Model("wide_resnet", 1, 2, "cifar", "batch", "float32", "relu", 0.0, (), False), 4
    ),
}
IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


@functools.cache
def begun(name):
    return treated.network_of(NETWORKS[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_site_is_there_with_its_kernels_and_its_norm(name):
    sites, began = units.sites(NETWORKS[name]), begun(name)
    assert len(sites) == {"mlp": 2, "wide_resnet": 3, "bottleneck": 2}.get(name, 4)
    call = functools.partial(forward, NETWORKS[name], train=False)
    _, features, _ = jax.eval_shape(call, began.params, began.stats, IMAGES)
    for site in sites:
        width = units.at(began.params, site.layer)["kernel"].shape[-1]
        copies = 2 if name == "crelu" else 1
        assert units.at(began.params, site.following)["kernel"].shape[-2] == copies * width
        assert features[site.name].shape[-1] == copies * width
        assert bool(site.norm) == (name in ("resnet", "wide_resnet", "bottleneck"))
        if site.norm:
            assert units.at(began.stats, site.norm)["mean"].shape == (width,)


@pytest.mark.parametrize("name", ["mlp", "crelu", "wide_resnet", "bottleneck"])
def test_what_belongs_to_a_unit_reaches_only_its_activations_and_leaves_by_its_rows(name):
    """With the incoming weights of the second unit changed, no other unit of its layer moves; with its rows zero, no
    logit does."""
    params, stats = treated.drawn(NETWORKS[name])
    began, sites = Network(params, stats, (), {}), units.sites(NETWORKS[name])
    site = sites[1 if name == "bottleneck" else 0]  # of a bottleneck the second site, which a basic block lacks
    width = units.at(began.params, site.layer)["kernel"].shape[-1]
    chosen = {each.name: np.zeros(units.at(began.params, each.layer)["kernel"].shape[-1], bool) for each in sites}
    chosen[site.name] = np.arange(width) == 1
    half = np.float32(0.5)
    masks = jax.device_get(jax.jit(lambda chosen: units.masks(began.params, began.stats, sites, chosen))(chosen))
    silent = jax.tree.map(lambda hit, leaf: np.where(hit, np.float32(0), leaf), masks.outgoing, began.params)
    other = jax.tree.map(lambda hit, leaf: np.where(hit, leaf + half, leaf), masks.incoming, silent)
    stats = jax.tree.map(lambda hit, leaf: np.where(hit, leaf + half, leaf), masks.stats, began.stats)
    (before, shown), (after, moved) = (
        jax.device_get(treated.outputs(NETWORKS[name], *network, IMAGES))
        for network in ((silent, began.stats), (other, stats))
    )
    np.testing.assert_array_equal(before, after)
    differs = np.any(np.asarray(shown[site.name] != moved[site.name]), axis=tuple(range(shown[site.name].ndim - 1)))
    halves = np.asarray(differs).reshape(-1, width)
    np.testing.assert_array_equal(np.any(halves, 0), chosen[site.name])
    touched = {path for path, hit in parameters.paths(masks.incoming).items() if np.any(hit)}
    leaves = parameters.paths(began.params)
    wanted = {f"{site.layer}/kernel", f"{site.layer}/bias", f"{site.norm}/scale", f"{site.norm}/bias"}
    assert touched == wanted & leaves.keys()
    assert [path for path, hit in parameters.paths(masks.outgoing).items() if np.any(hit)] == [
        f"{site.following}/kernel"
    ]


def test_activity_is_the_mean_over_positions_and_the_examples_that_fire():
    h = np.zeros((2, 1, 2, 6), np.float32)
    h[0, 0, :, 1], h[1, 0, 0, 1], h[1, 0, 1, 2] = (1.0, 3.0), 2.0, -4.0
    site = units.sites(NETWORKS["mlp"])[0]
    measured = units.activity({site.name: h}, (site,), begun("mlp").params)[site.name]
    np.testing.assert_allclose(measured["level"][1:4], [2.0 + 1.0, 2.0, 0.0])
    np.testing.assert_array_equal(measured["fired"][1:4], [2, 0, 0])
    both = np.concatenate([h, 2 * h], -1)  # as CReLU has it: the positive halves before the negative ones
    measured = units.activity({site.name: both}, (site,), begun("mlp").params)[site.name]
    np.testing.assert_allclose(measured["level"][1:3], [1.5 * 3.0, 1.5 * 2.0])


def test_a_network_of_a_user_names_its_units_by_a_method():
    site = units.Site("hidden", "hidden", "", "head")

    class Own(nn.Module):
        def units(self):
            return (site,)

    assert units.sites(Own()) == (site,) and units.sites(CONVOLVED) == ()
    assert (
        units.sites(models.build(spec.Model("logistic", 1, 1, "cifar", "none", "float32", "relu", 0.0, (), False), 4))
        == ()
    )
