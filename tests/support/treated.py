"""Stages with remedies on tiny networks, and networks with known numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.config.remedies import Remedy
from plasticity_jax.configs import base
from plasticity_jax.models import units
from plasticity_jax.training import state, step
from plasticity_jax.training.gradient import forward
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.interface import Network, Now
from tests.support.tiny import IMAGES, SHAPE, stage

MOMENT = {name: moment for name, (moment, _) in apply.signatures().items()}


def remedy(name: str, **numbers: float) -> Remedy:
    """A built-in remedy with its defaults of `configs/base.py` and changed numbers."""
    return Remedy(name, MOMENT[name], tuple(sorted((base.REMEDIES[name] | numbers).items())))


def treated(*remedies: Remedy, **fields):
    """A stage with remedies."""
    return stage(remedies=remedies, **{"optim": stage(name="train").optim} | fields)


def drawn(model, seed: int = 0):
    """(params, statistics) like fresh ones, drawn on the host without compilation."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree.map_with_path(draw, state.network_like(model, SHAPE))


def network_of(model, seed: int = 0, **fields) -> Network:
    """A network whose statistics, moments and counts are all nonzero."""
    params, stats = drawn(model, seed)
    like = state.like((params, stats), stage(remedies=(remedy("redo"),), **fields))
    rng = np.random.default_rng(seed)

    def noise(leaf):
        return rng.uniform(5, 9, leaf.shape).astype(leaf.dtype)

    return Network(params, jax.tree.map(noise, stats), jax.tree.map(noise, like.opt), {})


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, params, stats, images):
    """(logits, features) in eval mode."""
    return forward(model, params, stats, images, train=False)[:2]


def now_of(model, network: Network, activity=None, seed: int = 0, at: int = 1) -> Now:
    """The `Now` after a step with the given activity of each unit, [D] by site."""
    sites = units.sites(model)
    shown = {site: {"level": jnp.asarray(a), "fired": jnp.asarray(a)} for site, a in (activity or {}).items()}
    key, images = jax.random.key(seed), jnp.zeros((4, *SHAPE))
    return Now(
        jnp.int32(at),
        key,
        0.1,
        network.params,
        network.params,
        images,
        1.0,
        shown,
        sites,
        lambda key: drawn(model, seed + 1),
        None,
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def train(began, row, until, model, record):
    """The state of a run after training up to a step, on the images of the data set."""
    return step.advance(began, (row, until), IMAGES, model=model, stage=record)


def state_of(model, record) -> state.TrainState:
    """The initial state of a run, with weights drawn on the host."""
    return jax.jit(state.create, static_argnums=2)(*drawn(model), record)
