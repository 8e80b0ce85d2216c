"""ReDo and what it shares with other remedies: a unit is replaced with all of its weights, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.models import parameters, units
from plasticity_jax.training.remedies import periodic, replacement
from tests.support import treated
from tests.support.tiny import OPTIM, SHAPE, changed, same

ADAM = changed(OPTIM, name="adam")
DEEP = models.build(spec.Model("mlp", 2, 6, "cifar", "none", "float32", "relu", 0.0, (), False), 4)
RESNET = models.build(spec.Model("resnet", 1, 2, "cifar", "batch", "float32", "relu", 0.0, (), False), 4)
IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


def levels(model, network, dormant):
    """Activities of 1, but 0 for the dormant units, {site: indices}."""
    activities = {}
    for site in units.sites(model):
        activities[site.name] = np.ones(units.at(network.params, site.layer)["kernel"].shape[-1], np.float32)
        activities[site.name][list(dormant.get(site.name, ()))] = 0
    return activities


def redo(model, network, dormant, threshold=0.1):
    activity = levels(model, network, dormant)

    @jax.jit
    def act(network, activity):
        now = treated.now_of(model, network, activity)
        return periodic.redo(network, now, threshold=threshold), now.fresh(now.key)

    return jax.device_get(act(network, activity))


@pytest.mark.parametrize(
    "model", [pytest.param(DEEP, id="mlp"), pytest.param(RESNET, id="resnet", marks=pytest.mark.slow)]
)
def test_redo_does_not_change_the_function_where_the_recycled_unit_is_silent(model):
    network = treated.network_of(model, optim=ADAM)
    site = units.sites(model)[0]
    chosen = {site.name: np.arange(len(levels(model, network, {})[site.name])) == 1}
    into, *_ = jax.device_get(
        jax.jit(lambda chosen: units.masks(network.params, network.stats, (site,), chosen))(chosen)
    )
    silent = network._replace(
        params=jax.tree.map(
            lambda hit, leaf: np.where(hit, np.float32(-1.0 * (leaf.ndim == 1)), leaf), into, network.params
        ),
        stats=treated.drawn(model)[1],
    )
    after, _ = redo(model, silent, {site.name: [1]})
    before, shown = treated.outputs(model, silent.params, silent.stats, IMAGES)
    assert not np.any(np.asarray(shown[site.name])[..., 1])
    now, lively = treated.outputs(model, after.params, after.stats, IMAGES)
    np.testing.assert_allclose(now, before, rtol=1e-6)
    assert np.any(np.asarray(lively[site.name])[..., 1])


def test_redo_replaces_all_that_belongs_to_a_unit_and_nothing_else():
    network = treated.network_of(RESNET, optim=ADAM)
    after, (fresh, stats) = redo(RESNET, network, {"module2/block0/inner": [1]})
    block, new, old = (tree["module2"]["block0"] for tree in (after.params, fresh, network.params))
    assert same(block["conv1"]["kernel"][..., 1], new["conv1"]["kernel"][..., 1])
    assert same(block["conv1"]["kernel"][..., 0], old["conv1"]["kernel"][..., 0])
    assert not np.any(block["conv2"]["kernel"][:, :, 1]) and same(
        block["conv2"]["kernel"][:, :, 0], old["conv2"]["kernel"][:, :, 0]
    )
    assert (
        after.stats["module2"]["block0"]["norm1"]["mean"][1] == 0
        and after.stats["module2"]["block0"]["norm1"]["var"][1] == 1
    )
    changed_at = {
        path
        for path, leaf in parameters.paths(after.params).items()
        if not same(leaf, parameters.paths(network.params)[path])
    }
    assert changed_at == {f"module2/block0/{name}/kernel" for name in ("conv1", "conv2")}  # a fresh norm is 1 and 0 too
    assert [
        p for p, leaf in parameters.paths(after.stats).items() if not same(leaf, parameters.paths(network.stats)[p])
    ] == [f"module2/block0/norm1/{name}" for name in ("mean", "var")]
    adam = next(part for part in jax.tree.leaves(after.opt, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu"))
    for moments in (adam.mu, adam.nu, adam.count):
        inside = moments["module2"]["block0"]
        gone = [inside["conv1"]["kernel"][..., 1], inside["conv2"]["kernel"][:, :, 1], inside["norm1"]["scale"][1]]
        kept = [inside["conv1"]["kernel"][..., 0], inside["conv2"]["kernel"][:, :, 0], inside["norm1"]["scale"][0]]
        assert not any(np.any(part) for part in gone) and all(np.all(np.asarray(part) > 0) for part in kept)
        assert np.all(np.asarray(moments["head"]["kernel"]) > 0)


@pytest.mark.parametrize(("threshold", "replaced"), [(0.0, [2]), (0.1, [2, 3]), (0.5, [1, 2, 3])])
def test_redo_compares_each_units_share_of_its_layers_mean(threshold, replaced):
    network = treated.network_of(DEEP, optim=ADAM)
    level = np.float32([2, 0.5, 0, 0.1, 2, 2])  # of a mean of 1.1: 0.45 and 0.09

    @jax.jit
    def act(threshold):
        now = treated.now_of(DEEP, network, {"layer1": 10 * level, "layer2": 10 * level + 30})._replace(examples=10.0)
        return periodic.redo(network, now, threshold=threshold)

    after = jax.device_get(act(threshold))
    silent = [unit for unit in range(6) if not np.any(after.params["layer2"]["kernel"][unit])]
    assert silent == replaced and same(after.params["head"], network.params["head"])


def test_a_weight_between_two_replaced_units_is_zero():
    after, (fresh, _) = redo(DEEP, treated.network_of(DEEP, optim=ADAM), {"layer1": [0], "layer2": [3]})
    kernel = after.params["layer2"]["kernel"]
    assert not np.any(kernel[0]) and same(kernel[1:, 3], fresh["layer2"]["kernel"][1:, 3])


def test_memories_of_a_replaced_unit_begin_again():
    network = treated.network_of(DEEP, optim=ADAM)
    first = jax.tree.map(lambda leaf: leaf + 1, network.params)
    vectors = jax.tree.map(lambda leaf: leaf + 3, units.by_unit(network.params))
    network = network._replace(memory={"l2_init": first, "ages": (vectors, jnp.float32(7))})
    hit = {site.name: np.arange(6) == 2 for site in units.sites(DEEP)}
    fresh = treated.now_of(DEEP, network).fresh(jax.random.key(1))
    act = jax.jit(lambda network, hit: replacement.replace_units(network, units.sites(DEEP), hit, fresh))
    after = jax.device_get(act(network, hit))
    assert same(after.memory["l2_init"]["layer1"]["kernel"][:, 2], after.params["layer1"]["kernel"][:, 2])
    assert same(after.memory["l2_init"]["layer1"]["kernel"][:, 1], first["layer1"]["kernel"][:, 1])
    ages, seven = after.memory["ages"]
    np.testing.assert_array_equal(ages["layer1"], [3, 3, 0, 3, 3, 3])
    np.testing.assert_array_equal(ages["head"], 3)
    assert seven == 7
