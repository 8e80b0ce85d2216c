"""The lab's BatchNorm, which needs few kernels, equals that of Flax: parameters, statistics, values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models import layers, products
from plasticity_jax.models.batch_norm import BatchNorm

SHAPES = [(6, 5, 4, 3), (4, 1, 1, 8)]


def made(train, dtype=jnp.float32):
    """(ours, Flax's) as `layers` has them."""
    build = functools.partial(layers.batch_norm, 0, train, dtype, "norm", 1.0)
    with products.together():
        ours = build()
    theirs = build()
    assert (type(ours), type(theirs)) == (BatchNorm, nn.BatchNorm)
    return ours, theirs


def example(shape, runs=2):
    """Variables of each run, images with a nonzero mean, and the gradient of the result."""
    rng = np.random.default_rng(shape[-1])
    channels = (runs, shape[-1])
    x = (3.0 + 2.0 * rng.standard_normal((runs, *shape))).astype(np.float32)
    params = {"scale": rng.uniform(0.5, 2.0, channels), "bias": rng.standard_normal(channels)}
    stats = {"mean": rng.standard_normal(channels), "var": rng.uniform(0.5, 2.0, channels)}
    cast = functools.partial(jax.tree.map, np.float32)
    return cast(params), cast(stats), x, rng.standard_normal(x.shape).astype(np.float32)


def run(module, params, stats, x, dy):
    """Result, new statistics, and gradients of parameters and images."""

    def one(params, stats, x, dy):
        def call(params, x):
            return module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])

        y, pull, updates = jax.vjp(call, params, x, has_aux=True)
        return y, updates["batch_stats"], pull(dy.astype(y.dtype))

    return jax.jit(jax.vmap(one))(params, stats, x, dy)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_statistics_and_gradients_are_those_of_flax(shape, train):
    given = example(shape)
    found, expected = (run(module, *given) for module in made(train))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), found, expected)


def test_bfloat16_in_and_out_and_float32_inside():
    params, stats, x, dy = example((6, 5, 4, 3))
    x = x.astype(jnp.bfloat16)
    actual, expected = (run(module, params, stats, x, dy) for module in made(True, jnp.bfloat16))
    assert actual[0].dtype == actual[2][1].dtype == jnp.bfloat16 and actual[1]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(actual[1]["mean"], expected[1]["mean"], rtol=1e-6)
    np.testing.assert_allclose(actual[1]["var"], expected[1]["var"], rtol=1e-5)
    wide = functools.partial(jax.tree.map, np.float32)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-2, atol=2e-2), wide(actual), wide(expected))


def test_the_first_variables_are_those_of_flax():
    x = np.ones((2, 3, 3, 4), np.float32)
    actual, expected = (module.init(jax.random.key(0), x) for module in made(True))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_one_pass_each_way():
    """Both sums in one reduction, forward and backward; XLA for GPUs compiles each to one kernel."""
    params, stats, x, dy = example((6, 5, 4, 3))

    def loss(params, x):
        y, _ = made(True)[0].apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return jnp.sum(y * dy[0])

    params, stats = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (params, stats))
    slope = jax.jit(lambda params, x, dy: jax.vjp(loss, params, x)[1](dy))
    text = slope.lower(params, x[0], np.float32(1)).as_text()
    assert text.count("stablehlo.reduce") == 2
