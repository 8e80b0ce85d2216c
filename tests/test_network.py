"""A network of one's own: Dropout that draws by stage and step, other signatures, and what is none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny
from flax import nnx
from test_devices import stopping

from plasticity_jax import gradient, network, state, train
from plasticity_jax.errors import ConfigError, Preempted


class Dropping(nn.Module):
    """The smallest network with Dropout."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Dense(8, name="hidden")(images.reshape(len(images), -1)))
        return nn.Dense(4, name="head")(nn.Dropout(0.5, deterministic=not train)(x))


class Plain(nn.Module):
    """No argument `train`."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(4, name="head")(images.reshape(len(images), -1))


class Open(nn.Module):
    """Takes any mode."""

    @nn.compact
    def __call__(self, images, **mode):
        assert set(mode) == {"train"}
        return nn.Dense(4, name="head")(images.reshape(len(images), -1))


class Asking(nn.Module):
    """Wants more than it is given."""

    @nn.compact
    def __call__(self, images, deterministic):
        return nn.Dense(4)(images.reshape(len(images), -1))


class Blind(nn.Module):
    def __call__(self):
        return jnp.zeros((1, 4))


class Noisy(nn.Module):
    """Draws in a mode, or from a stream, that is not given."""

    always: bool = False

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(4, name="head")(images.reshape(len(images), -1))
        if self.always or not self.has_variable("params", "head"):
            return nn.Dropout(0.5, deterministic=False)(x)
        return nn.Dropout(0.5, deterministic=not train, rng_collection="noise")(x)


DROPPING = Dropping()


@jax.jit
def stepped(seed, step):
    """The parameters after one step of a stage at a step."""
    stage = tiny.stage(batch_size=16)
    task = tiny.task(stage)._replace(key=jax.random.key(seed))
    batch = {"image": tiny.IMAGES.take(jnp.arange(16)), "label": jnp.arange(16) % 4}
    before = state.create(*state.init_network(DROPPING, jax.random.key(0), tiny.SHAPE), stage).replace(step=step)
    return train.train_step(before, batch, model=DROPPING, stage=stage, task=task)[0].params


def test_dropout_draws_by_the_stage_and_the_step():
    first = stepped(0, 3)
    assert tiny.same(first, stepped(0, 3))
    assert not tiny.same(first, stepped(0, 4)) and not tiny.same(first, stepped(1, 3))


@pytest.mark.slow
def test_each_micro_batch_draws_anew():
    """Of images that are all alike, one mask for all would give each micro-batch the same gradient."""
    alike = {"image": tiny.IMAGES.take(jnp.zeros(16, jnp.int32)), "label": jnp.zeros(16, jnp.int32)}
    begun = tiny.first_state(DROPPING)

    @jax.jit
    def mean(key):
        stage = tiny.stage(batch_size=16, micro_batch=1)
        return gradient.gradient(begun, alike, (), model=DROPPING, stage=stage, key=key)[0]["hidden"]["bias"]

    one = jax.jit(jax.grad(lambda params, key: _loss(params, alike, key)))(begun.params, jax.random.key(1))
    zeros = [int(np.sum(np.asarray(found) == 0)) for found in (mean(jax.random.key(1)), one["hidden"]["bias"])]
    assert zeros[0] < zeros[1]  # a unit is dropped in every micro-batch, or in the one


def _loss(params, batch, key):
    logits, _, _ = gradient.forward(DROPPING, params, {}, batch["image"][:1], True, key)
    return -nn.log_softmax(logits)[0, 0]


def test_in_evaluation_nothing_is_dropped():
    begun, images = tiny.first_state(DROPPING), tiny.IMAGES.take(jnp.arange(8))
    whole, _, _ = gradient.forward(DROPPING, begun.params, {}, images, train=False, key=jax.random.key(0))
    again, _, _ = gradient.forward(DROPPING, begun.params, {}, images, train=False)
    assert np.array_equal(whole, again)


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
    assert network.check(model) is model
    begun, images = tiny.first_state(model), tiny.IMAGES.take(jnp.arange(8))
    for train_mode in (False, True):
        assert gradient.forward(model, begun.params, {}, images, train_mode)[0].shape == (8, 4)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (nnx.Linear(64, 4, rngs=nnx.Rngs(0)), "is of the type Linear, and must be an instance of a flax.linen module"),
        (Plain, "is the class Plain, and must be an instance"),
        ("mlp", "is of the type str, and must be"),
        (Asking(), "the __call__ of Asking must take images and, if it wants, `train`; give its argument 'determini"),
        (Blind(), "the __call__ of Blind must take images and, if it wants, `train`; it takes no images"),
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
