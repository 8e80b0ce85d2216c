"""The state of ONE run, and how it begins."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from plasticity_jax import optim, stages
from plasticity_jax.sampling import key

Array = jax.Array
Tree = Any


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    step: int32, steps taken in this stage.
    params, stats: the network's parameters and BatchNorm running statistics (float32).
    opt: the optimiser's state.
    tally: float32 [3], sums of loss, correct and count since the epoch began.
    last: float32 [2], running train loss and accuracy (percent) of the last whole epoch; NaN before there is one.
    done: bool, the stage has ended for this run (its length, its train accuracy, or a failure).
    failed: bool, the loss was not finite.
    """

    step: Array
    params: Tree
    stats: Tree
    opt: Tree
    tally: Array
    last: Array
    done: Array
    failed: Array


def init_network(model: nn.Module, seed_key: Array, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Fresh (params, statistics) for images of [H, W, C]."""
    variables = model.init(seed_key, jnp.zeros((1, *image_shape), jnp.float32), train=False)
    return variables["params"], variables.get("batch_stats", {})


def network_like(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    """The shapes of what `init_network` returns; tracing a network takes long enough to do it once."""
    return jax.eval_shape(lambda: init_network(model, jax.random.key(0), image_shape))


def init_key(seed: int) -> Array:
    """The key of a seed's first weights; fresh and warm runs of a seed share it."""
    return key(seed, "init")


def create(params: Tree, stats: Tree, spec: stages.Optim) -> TrainState:
    """A state at step 0 with a new optimiser."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        stats=stats,
        opt=optim.optimiser(spec, optim.hyper(spec), spec.learning_rate).init(params),
        tally=jnp.zeros(3, jnp.float32),
        last=jnp.full(2, jnp.nan, jnp.float32),
        done=jnp.bool_(False),
        failed=jnp.bool_(False),
    )


def like(network: tuple[Tree, Tree], spec: stages.Optim) -> TrainState:
    """The shapes of what `create` returns for a `network_like`."""
    return jax.eval_shape(lambda params, stats: create(params, stats, spec), *network)
