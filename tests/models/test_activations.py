"""Other activations than ReLU, and dropout, in the networks of the lab."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.models import layers, resnet
from plasticity_jax.training.gradient import forward
from tests.support import treated
from tests.support.tiny import SHAPE

IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


def build(name="mlp", activation="relu", dropout=0.0):
    return models.build(spec.Model(name, 1, 8, "cifar", "none", "float32", activation, dropout, (), False), 4)


def test_crelu_is_both_halves_and_leaky_relu_lets_a_hundredth_through():
    x = jnp.float32([[1, -2, 3]])
    np.testing.assert_array_equal(layers.crelu(x), [[1, 0, 3, 0, 2, 0]])
    np.testing.assert_allclose(layers.ACTIVATIONS["leaky_relu"](x), [[1, -0.02, 3]])


@pytest.mark.parametrize("name", ["mlp", "resnet", "wide_resnet"])
@pytest.mark.parametrize("activation", ["leaky_relu", "crelu"])
def test_an_activation_is_where_it_belongs(name, activation):
    """Leaky ReLU everywhere; CReLU in each layer of a perceptron, and in the middle of each block of a ResNet."""
    net = build(name, activation)
    params, stats = treated.drawn(net)
    widths = jax.eval_shape(functools.partial(forward, net, train=False), params, stats, IMAGES)[1]
    plain = build(name)
    before = jax.eval_shape(functools.partial(forward, plain, train=False), *treated.drawn(plain), IMAGES)[1]
    for site, value in widths.items():
        doubled = activation == "crelu" and (name == "mlp" or site.endswith("inner"))
        assert value.shape[-1] == (1 + doubled) * before[site].shape[-1], site


def test_a_bottleneck_has_crelu_and_dropout_after_both_of_its_inner_convolutions():
    block, rates = resnet.Bottleneck(3, 1, "none", jnp.float32, "crelu", 0.5), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates.append((context.module.rate, args[0].shape[-1]))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        key = jax.random.key(0)
        drawn = jax.eval_shape(lambda: block.init({"params": key, "dropout": key}, IMAGES, True)["params"])
    assert [drawn[f"conv{i}"]["kernel"].shape[-2:] for i in (1, 2, 3)] == [(IMAGES.shape[-1], 3), (6, 3), (6, 12)]
    assert rates == [(0.5, 6), (0.5, 6)]


def test_the_numbers_of_a_perceptron():
    for activation in ("leaky_relu", "crelu"):
        params, _ = treated.drawn(build(activation=activation))
        logits, features = treated.outputs(build(activation=activation), params, {}, IMAGES)
        hidden = IMAGES.reshape(3, -1) @ params["layer1"]["kernel"]
        wanted = np.asarray(layers.ACTIVATIONS[activation](hidden))
        np.testing.assert_allclose(features["layer1"], wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits, wanted @ params["head"]["kernel"], rtol=1e-4, atol=1e-5)


def test_dropout_drops_a_share_in_training_and_nothing_else():
    params, _ = treated.drawn(build())
    plain, _ = treated.outputs(build(), params, {}, IMAGES)
    dropping = build(dropout=0.5)
    np.testing.assert_array_equal(treated.outputs(dropping, params, {}, IMAGES)[0], plain)
    keys = jax.random.split(jax.random.key(0), 400)
    train = jax.jit(jax.vmap(lambda key: forward(dropping, params, {}, IMAGES, True, key)[0]))
    logits = np.asarray(train(keys))
    assert np.all(np.std(logits, 0) > 0)
    np.testing.assert_allclose(np.mean(logits, 0), plain, atol=5 * np.max(np.std(logits, 0)) / 20)
