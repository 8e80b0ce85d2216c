"""Each remedy at the start of a stage against its definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models, study_config
from plasticity_jax.config import spec
from plasticity_jax.configs import base
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters
from plasticity_jax.training import gradient, sweep
from plasticity_jax.training.remedies import starts
from plasticity_jax.training.remedies.interface import Begun, Network
from tests.support import small, treated
from tests.support.tiny import DATASET, IMAGES, MLP, RESNET, first_state, stage, task

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (3, 3, 8, 8)])
def test_the_polar_factor_is_orthogonal_and_the_nearest(shape):
    drawn = np.float32(RNG.normal(size=shape)) * 30
    factors = np.asarray(jax.jit(starts.polar)(drawn), np.float64).reshape(-1, *shape[-2:])
    for x in factors:
        small = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
        np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-3)


def test_fire_takes_the_nearest_orthogonal_matrix_by_svd_and_scales_it():
    network = treated.network_of(RESNET)
    network.params["head"]["kernel"][:] = RNG.normal(size=network.params["head"]["kernel"].shape)
    network.params["stem"]["conv"]["kernel"][0, 0] = 0
    after = jax.device_get(jax.jit(lambda network: starts.fire(network, None).params)(network))

    def nearest(matrix):
        u, _, vt = np.linalg.svd(matrix, full_matrices=False)
        return u @ vt

    head = network.params["head"]["kernel"]
    np.testing.assert_allclose(after["head"]["kernel"], np.sqrt(4 / 16) * nearest(head), atol=1e-3)
    kernel = network.params["module3"]["block0"]["conv1"]["kernel"]
    orthogonal = after["module3"]["block0"]["conv1"]["kernel"]
    for place in np.ndindex(3, 3):
        np.testing.assert_allclose(orthogonal[place], np.sqrt(4 / 2) / 9 * nearest(kernel[place]), atol=1e-3)
    assert not np.any(after["stem"]["conv"]["kernel"][0, 0]) and np.all(np.isfinite(after["stem"]["conv"]["kernel"]))
    for path, leaf in parameters.paths(network.params).items():
        if leaf.ndim == 1:
            np.testing.assert_array_equal(parameters.paths(after)[path], leaf)


def test_dash_shrinks_by_the_cosine_with_the_descent_and_leaves_normalisations():
    network, slopes = treated.network_of(RESNET), []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        slopes.append(jax.tree.map(lambda leaf, rng=rng: np.float32(rng.normal(size=leaf.shape)), network.params))

    def sweep(params, stats, fold, carry):
        for slope in slopes:
            carry = fold(carry, slope)
        return carry

    begun = Begun((), (), None, sweep)
    after = jax.jit(lambda network: starts.dash(network, begun, momentum=0.3, least=0.2).params)(network)
    after = jax.device_get(after)
    g = jax.tree.map(lambda a, b: -0.3 * (0.7 * a + b), *slopes)

    def cosine(a, b):
        return np.clip(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b), 0.2, 1)

    old, new, way = (tree["module2"]["block0"]["conv1"]["kernel"] for tree in (network.params, after, g))
    for i, o in np.ndindex(2, 2):
        np.testing.assert_allclose(new[..., i, o], cosine(old[..., i, o], way[..., i, o]) * old[..., i, o], rtol=1e-4)
    old, new, way = (tree["head"]["kernel"] for tree in (network.params, after, g))
    for o in range(4):
        np.testing.assert_allclose(new[:, o], cosine(old[:, o], way[:, o]) * old[:, o], rtol=1e-4)
    for name in ("scale", "bias"):
        np.testing.assert_array_equal(after["stem"]["norm"][name], network.params["stem"]["norm"][name])


def test_a_sweep_folds_the_gradient_of_every_batch_of_the_data_in_their_order():
    """The last of the batches of 16 from 40 images is filled up with the first 8."""
    record = stage(batch_size=16)
    row, began = task(record, n=40), first_state(MLP)
    over = sweep.sweep(MLP, record, jax.tree.map(jnp.asarray, row), IMAGES)
    folded = jax.jit(lambda p: over(p, {}, lambda g, slope: jax.tree.map(lambda a, b: 0.5 * a + b, g, slope), p))(
        began.params
    )
    order, wanted = np.concatenate([np.arange(40), np.arange(8)]), began.params

    @jax.jit
    def slope(indices):
        batch = {"image": IMAGES.take(indices), "label": jnp.asarray(DATASET.train_labels)[indices]}
        return gradient.gradient(began, batch, (), model=MLP, stage=record)[0]

    for indices in row.source.indices[order].reshape(3, 16):
        wanted = jax.tree.map(lambda a, b: 0.5 * a + b, wanted, slope(indices))
    for a, b in zip(jax.tree.leaves(folded), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "modules"),
    [("mlp", ("layer2", "head")), pytest.param("resnet", ("module5", "head"), marks=pytest.mark.long)],
)
def test_injection_keeps_the_function_and_trains_new_weights_beside_the_old(network, modules):
    """f(live) + f(old) - f(drawn) equals the network before, in both modes; gradients pass through all three."""
    record = spec.Model(network, 2 if network == "mlp" else 1, 2, "cifar", "batch", "float32", "relu", 0.0, (), False)
    plain, model = (models.build(dataclasses.replace(record, injected=names), 4) for names in ((), modules))
    images = jnp.float32(RNG.normal(size=(6, 8, 8, 3)))
    init = jax.jit(lambda seed: model.init(jax.random.key(seed), images, train=False))
    variables, drawn = init(0), init(1)["params"]
    stats = dict(variables["batch_stats"])

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def logits(params, stats, train, model=model):
        variables = {"params": params, "batch_stats": stats}
        (out, _), changed = model.apply(variables, images, train, mutable=["batch_stats"])
        return out, changed.get("batch_stats", {})

    plain_stats = {name: leaf for name, leaf in stats.items() if not name.startswith("injected")}
    before, stats = logits(variables["params"], stats, True)
    alone = logits(variables["params"], plain_stats, True, plain)[0]
    np.testing.assert_allclose(before, alone, rtol=1e-5, atol=1e-6)  # nothing is injected yet
    begun = Begun(drawn, (), None, None)
    after = starts.plasticity_injection(Network(variables["params"], stats, (), {}), begun)
    for train in (False, True):
        now, then = logits(after.params, after.stats, train)[0], logits(variables["params"], stats, train)[0]
        np.testing.assert_allclose(now, then, atol=1e-6)
    for name, leaf in after.params.items():
        expected = drawn if name in modules else variables["params"]
        jax.tree.map(np.testing.assert_array_equal, leaf, expected[name])
    again = starts.plasticity_injection(after, begun._replace(first=variables["params"]))
    jax.tree.map(np.testing.assert_array_equal, again, after)  # only once
    one = {**after.params, "head": jax.tree.map(lambda leaf: leaf + 1, after.params["head"])}
    assert np.max(np.abs(logits(one, after.stats, False)[0] - now)) > 0.1


def test_injection_needs_a_network_that_is_made_for_it():
    config = small.config()
    config.stages.tune.remedies = base.treated(plasticity_injection={})
    with pytest.raises(ConfigError, match=r"config.model.injected=\(\): stage tune has the remedy plasticity_inj"):
        study_config.parse(config)
    config.model.injected = ("head", "no")
    record = study_config.parse(config).packs[0].model
    with pytest.raises(ConfigError, match="model.injected: the network has no module no; choose of layer1, head"):
        jax.eval_shape(lambda: models.build(record, 4).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
