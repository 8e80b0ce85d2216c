"""A user's own network: Dropout that draws by stage and step, other signatures, and objects that are no network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plasticity_jax.errors import ConfigError, Preempted
from plasticity_jax.models import interface
from plasticity_jax.training import gradient, state
from plasticity_jax.training.step import train_step
from tests.parallel.test_devices import stopping
from tests.support import small, tiny

UNITS = 64


class Dropping(nn.Module):
    """The smallest network with Dropout."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Dense(UNITS, name="hidden")(images.reshape(len(images), -1)))
        return nn.Dense(4, name="head")(nn.Dropout(0.5, deterministic=not train)(x))


class Plain(nn.Module):
    """No argument `train`."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(4, name="head")(images.reshape(len(images), -1))


class Open(nn.Module):
    """Accepts keyword arguments, and with them any mode."""

    @nn.compact
    def __call__(self, images, **mode):
        assert set(mode) == {"train"}
        return nn.Dense(4, name="head")(images.reshape(len(images), -1))


class Asking(nn.Module):
    """Requires an argument that it is not given."""

    @nn.compact
    def __call__(self, images, deterministic):
        return nn.Dense(4)(images.reshape(len(images), -1))


class Blind(nn.Module):
    def __call__(self):
        return jnp.zeros((1, 4))


class Noisy(nn.Module):
    """Draws in a mode, or from a random stream, that is not given."""

    always: bool = False

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(4, name="head")(images.reshape(len(images), -1))
        if self.always or not self.has_variable("params", "head"):
            return nn.Dropout(0.5, deterministic=False)(x)
        return nn.Dropout(0.5, deterministic=not train, rng_collection="noise")(x)


DROPPING = Dropping()


BEGUN = tiny.stage(batch_size=4)
BATCH = {"image": np.ones((4, 2, 2, 1), np.float32), "label": np.zeros(4, np.int32)}


def begin(step=0):
    """A run on images of 2x2 pixels, at a step; constant weights need no compilation."""
    hidden = {"kernel": np.linspace(0.1, 1, 4 * UNITS, dtype=np.float32).reshape(4, UNITS), "bias": np.zeros(UNITS)}
    head = {"kernel": np.linspace(0, 1, 4 * UNITS, dtype=np.float32).reshape(UNITS, 4), "bias": np.zeros(4)}
    params = jax.tree.map(jnp.float32, {"hidden": hidden, "head": head})
    return state.create(params, {}, BEGUN).replace(step=step)


@jax.jit
def stepped(seed, step):
    """The parameters after one step of a stage at a step."""
    task = tiny.task(BEGUN)._replace(key=jax.random.key(seed))
    return train_step(begin(step), BATCH, model=DROPPING, stage=BEGUN, task=task)[0].params


def test_dropout_draws_by_the_stage_and_the_step():
    first = stepped(0, 3)
    assert tiny.same(first, stepped(0, 3))
    assert not tiny.same(first, stepped(0, 4)) and not tiny.same(first, stepped(1, 3))


def test_each_micro_batch_draws_anew():
    """A unit dropped in every micro-batch learns nothing: half of all units, if all had the same mask."""

    @jax.jit
    def found(key):
        stage = tiny.changed(BEGUN, micro_batch=1)
        return gradient.gradient(begin(), BATCH, (), model=DROPPING, stage=stage, key=key)[0]["hidden"]["bias"]

    assert 0 < np.mean(np.asarray(found(jax.random.key(1))) == 0) < 0.25  # a 16th of them


def test_in_evaluation_nothing_is_dropped():
    @jax.jit
    def logits():
        params, images = begin().params, BATCH["image"]
        given = gradient.forward(DROPPING, params, {}, images, train=False, key=jax.random.key(0))
        return given[0], gradient.forward(DROPPING, params, {}, images, train=False)[0]

    assert np.array_equal(*logits())


@pytest.mark.long
def test_with_dropout_a_run_alone_in_company_and_resumed_is_the_same(tmp_path):
    study = small.config(checkpoint_seconds=0.0)
    company = small.hashes(small.run(study, tmp_path / "company", model=DROPPING))
    alone = small.hashes(small.run(small.config(seeds=(1,)), tmp_path / "alone", model=DROPPING))
    assert alone == {run: company[run] for run in alone}
    with stopping(lambda step: step == 9), pytest.raises(Preempted):
        small.run(study, tmp_path / "resumed", model=DROPPING)
    assert small.hashes(small.run(study, tmp_path / "resumed", model=DROPPING)) == company
    assert small.tables(tmp_path / "resumed") == small.tables(tmp_path / "company")


@pytest.mark.parametrize("model", [Plain(), Open()], ids=["without", "any"])
def test_a_network_need_not_take_the_mode(model):
    assert interface.check(model) is model
    begun, images = tiny.first_state(model), tiny.IMAGES.take(jnp.arange(8))
    for train_mode in (False, True):
        assert gradient.forward(model, begun.params, {}, images, train_mode)[0].shape == (8, 4)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (nnx.Linear(64, 4, rngs=nnx.Rngs(0)), "is of the type Linear, and must be an instance of a flax.linen module"),
        (Plain, "is the class Plain, and must be an instance"),
        ("mlp", "is of the type str, and must be"),
        (Asking(), "the __call__ of Asking must take images and, optionally, `train`; give its argument 'determini"),
        (Blind(), "the __call__ of Blind must take images and, optionally, `train`; it takes no images"),
        (Noisy(), 'Dropout_0 needs PRNG for "noise" in training; random numbers are given in training only'),
        (Noisy(always=True), 'Dropout_0 needs PRNG for "dropout" in evaluation; random numbers'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_network_is_one_line(model, line, tmp_path):
    with pytest.raises(ConfigError) as caught:
        small.run(small.config(), tmp_path, model=model)
    assert str(caught.value).startswith(f"model: {line}") and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
