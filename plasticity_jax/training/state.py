"""The train state of ONE run, and its initial value."""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from plasticity_jax.config.spec import Stage
from plasticity_jax.data.batches import key
from plasticity_jax.models import interface
from plasticity_jax.training import autodecay, hyper, optimizers, schedules
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.remedies.interface import Begun, Network

Array = jax.Array
Tree = Any

# Of an epoch: mean loss and accuracy (percent) in train mode, mean norm of the gradient, and the last learning rate.
RUNNING = ("train_loss", "train_accuracy", "gradient_norm", "learning_rate")


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    step: int32, steps taken in this stage.
    params, stats: the network's parameters and BatchNorm running statistics (float32).
    opt: the optimiser's state.
    average: (params, stats) as an exponential moving average; () if there is none.
    remedy: the memories of the stage's remedies, by name; () if there are none.
    clock: position in the learning stages; () unless the schedule is `autodecay`.
    tally: float32 [4], sums of loss, correct, count and gradient norm since the start of the epoch.
    last: float32 [4], the values `RUNNING` of the last complete epoch; NaN before the first.
    done: bool, whether the stage has ended for this run (by length, train accuracy, detector or failure).
    failed: bool, whether the loss was not finite.
    """

    step: Array
    params: Tree
    stats: Tree
    opt: Tree
    average: Tree
    remedy: Tree
    clock: Tree
    tally: Array
    last: Array
    done: Array
    failed: Array


def init_network(model: nn.Module, seed_key: Array, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Fresh (params, statistics) for images of [H, W, C]."""
    variables = model.init(seed_key, jnp.zeros((1, *image_shape), jnp.float32), **interface.mode(model, train=False))
    return variables["params"], variables.get("batch_stats", {})


def network_like(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    """The shapes of the result of `init_network`, cached, since tracing a network is slow."""
    try:
        return _network_like(model, image_shape)
    except TypeError:  # a custom model with an unhashable field
        return _network_like.__wrapped__(model, image_shape)


@functools.lru_cache(maxsize=64)
def _network_like(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    return jax.eval_shape(lambda: init_network(model, jax.random.key(0), image_shape))


def init_key(seed: int) -> Array:
    """The key of a seed's initial weights, shared by fresh and warm runs."""
    return key(seed, "init")


def create(params: Tree, stats: Tree, stage: Stage, custom: Custom = NONE) -> TrainState:
    """The state at step 0 of `stage` with a new optimiser state; `custom` are remedies given from Python."""
    spec, detector = stage.optim, schedules.detector(stage.optim)
    opt = optimizers.optimiser(spec, hyper.hyper(spec), spec.learning_rate).init(params)
    if apply.replaces_weights(stage):
        opt = optimizers.count_by_weight(opt, params)
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        stats=stats,
        opt=opt,
        average=(params, stats) if stage.ema else (),
        remedy=(),
        clock=autodecay.start(detector, 1 + len(spec.milestones)) if detector else (),
        tally=jnp.zeros(len(RUNNING), jnp.float32),
        last=jnp.full(len(RUNNING), jnp.nan, jnp.float32),
        done=jnp.bool_(False),
        failed=jnp.bool_(False),
    )
    if not stage.remedies:
        return state
    begun = Begun(params, (params, stats), jax.random.key(0), lambda params, stats, fold, carry: carry)
    return state.replace(remedy=apply.memories(Network(params, stats, opt, {}), begun, stage, custom))


def like(network: tuple[Tree, Tree], stage: Stage, custom: Custom = NONE) -> TrainState:
    """The shapes of the result of `create` for a `network_like`, cached, since it traces the optimiser."""
    leaves, structure = jax.tree.flatten(network)
    return _like(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), stage, tuple(custom.items()))


@functools.lru_cache(maxsize=256)
def _like(
    structure: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...], stage: Stage, custom: tuple[tuple[str, Any], ...]
) -> TrainState:
    params, stats = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    return jax.eval_shape(lambda params, stats: create(params, stats, stage, dict(custom)), params, stats)
