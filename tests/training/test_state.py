"""The first weights of a run are a function of its seed alone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.data import batches
from plasticity_jax.models import parameters
from plasticity_jax.training import state
from tests.support.tiny import MLP, OPTIM, RESNET, SHAPE, changed, same, stage

BFLOAT16 = models.build(spec.Model("resnet", 1, 2, "cifar", "batch", "bfloat16", "relu", 0.0, (), False), 4)


@functools.partial(jax.jit, static_argnums=0)
def init(model, key):
    return state.init_network(model, key, SHAPE)


def test_first_weights_depend_on_the_seed():
    first, again, other = (init(MLP, state.init_key(seed)) for seed in (0, 0, 1))
    assert same(first, again)
    moved = [(a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)]
    assert all(moved) and len(moved) == 4


def test_weights_to_mix_in_are_not_the_first_ones():
    first, fresh = state.init_key(0), batches.key(0, "fresh", "tune")
    assert not same(init(MLP, first), init(MLP, fresh))


@pytest.mark.parametrize("model", [RESNET, BFLOAT16], ids=["float32", "bfloat16"])
def test_parameters_and_statistics_are_float32(model):
    params, stats = jax.eval_shape(functools.partial(init, model), state.init_key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {np.dtype(np.float32)}
    assert set(stats) == set(params) - {"head"}


def test_a_network_without_statistics():
    assert init(MLP, state.init_key(0))[1] == {}


def test_an_own_module_is_initialised_in_eval_mode():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            assert images.shape == (1, *SHAPE) and images.dtype == jnp.float32
            return nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(images.reshape(len(images), -1)))

    params, stats = init(Own(), state.init_key(0))
    assert list(params) == ["Dense_0"] and stats == {}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_stage_begins_at_step_0_with_an_optimiser_that_has_seen_nothing(name):
    params, stats = init(MLP, state.init_key(0))
    began = state.create(params, stats, stage(optim=changed(OPTIM, name=name, momentum=0.9)))
    assert began.step == 0 and began.step.dtype == jnp.int32
    assert not began.done and not began.failed
    assert began.tally.tolist() == [0] * 4 and np.isnan(began.last).all() and began.last.shape == (4,)
    assert same(began.params, params)
    moments = parameters.paths(began.opt)
    assert any(path.endswith("layer1/kernel") for path in moments)
    assert all((leaf == 0).all() for leaf in moments.values())
