"""Noise on activations: normal, of given deviation, independent in each layer; training adds it and lets it decay."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import jitter
from plasticity_jax.training import step
from tests.support import small
from tests.support.tiny import CONVOLVED, IMAGES, changed, first_state, same, stage, task

PLAIN = stage(learning_rate=0.1, batch_size=16)
NOISY = changed(PLAIN, activation_noise=0.5)


class Two(nn.Module):
    """Applies two normalisations to the same input."""

    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="first")(x), nn.LayerNorm(name="second")(x)


@jax.jit
def given(deviation):
    x = jax.random.normal(jax.random.key(0), (200, 50))
    params = Two().init(jax.random.key(1), x)
    with jitter.on_activations(deviation, jax.random.key(3)):
        noisy = Two().apply(params, x)
    return Two().apply(params, x), noisy


def test_noise_is_normal_and_apart_at_each_place():
    plain, noisy = given(0.1)
    first, second = (np.asarray(there - here).ravel() for there, here in zip(noisy, plain, strict=True))
    for drawn in (first, second):
        assert abs(drawn.mean()) < 5 * 0.1 / np.sqrt(drawn.size)
        assert drawn.std() == pytest.approx(0.1, rel=5 / np.sqrt(2 * drawn.size))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    np.testing.assert_allclose(*given(0.0), rtol=1e-5, atol=1e-6)


@functools.partial(jax.jit, static_argnames="record")
def trained(state, row, record):
    return step.advance(state, row, IMAGES, model=CONVOLVED, stage=record)


@pytest.mark.slow
def test_training_adds_it_and_it_falls_to_nothing():
    state = first_state(CONVOLVED, PLAIN)
    noisy, plain = (trained(state, (task(record), np.int32(1)), record) for record in (NOISY, PLAIN))
    assert not same(noisy.params, plain.params)
    done = state.replace(step=jnp.int32(5))  # the last of 6 steps, and an early one of 1000
    late = task(NOISY)._replace(steps=np.int32(6), noise=np.float32(0.5))
    early = late._replace(steps=np.int32(1000))
    moves = [
        float(jnp.abs(trained(done, (row, np.int32(6)), NOISY).params["head"]["kernel"] - plain_after).max())
        for row in (late, early)
        for plain_after in [trained(done, (row._replace(noise=()), np.int32(6)), PLAIN).params["head"]["kernel"]]
    ]
    assert 0 < 2 * moves[0] < moves[1]


def test_a_network_that_normalises_nothing_is_refused():
    config = small.config()
    config.model.norm = "none"
    config.stages.tune.activation_noise = 0.1
    with pytest.raises(ConfigError, match=r"activation_noise=0.1: .*has no normalisation"):
        plasticity_jax.run(config, "unused", dry_run=True)
