"""The state of ONE run, and how it begins."""

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
from plasticity_jax.training.remedies.apply import NONE, Own
from plasticity_jax.training.remedies.interface import Begun, Network

Array = jax.Array
Tree = Any

# Of an epoch: its mean loss and accuracy (percent) in train mode, the mean norm of its gradients, and its last rate.
RUNNING = ("train_loss", "train_accuracy", "gradient_norm", "learning_rate")


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    step: int32, steps taken in this stage.
    params, stats: the network's parameters and BatchNorm running statistics (float32).
    opt: the optimiser's state.
    average: (params, stats) as an exponential moving average; () if there is none.
    remedy: what the remedies of the stage remember, by name; () if there are none.
    clock: where the run is in its learning stages; () unless the schedule is `autodecay`.
    tally: float32 [4], sums of loss, correct, count and gradient norm since the epoch began.
    last: float32 [4], the numbers `RUNNING` of the last whole epoch; NaN before there is one.
    done: bool, the stage has ended for this run (its length, its train accuracy, its detector, or a failure).
    failed: bool, the loss was not finite.
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
    """The shapes of what `init_network` returns; found once, since tracing a network takes long."""
    try:
        return _network_like(model, image_shape)
    except TypeError:  # an own model with a list or another value without a hash
        return _network_like.__wrapped__(model, image_shape)


@functools.lru_cache(maxsize=64)
def _network_like(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    return jax.eval_shape(lambda: init_network(model, jax.random.key(0), image_shape))


def init_key(seed: int) -> Array:
    """The key of a seed's first weights; fresh and warm runs of a seed share it."""
    return key(seed, "init")


def create(params: Tree, stats: Tree, stage: Stage, own: Own = NONE) -> TrainState:
    """A state at step 0 of `stage` with a new optimiser; `own` are a user's remedies."""
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
    return state.replace(remedy=apply.memories(Network(params, stats, opt, {}), begun, stage, own))


def like(network: tuple[Tree, Tree], stage: Stage, own: Own = NONE) -> TrainState:
    """The shapes of what `create` returns for a `network_like`; found once, since it traces the optimiser."""
    leaves, structure = jax.tree.flatten(network)
    return _like(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), stage, tuple(own.items()))


@functools.lru_cache(maxsize=256)
def _like(
    structure: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...], stage: Stage, own: tuple[tuple[str, Any], ...]
) -> TrainState:
    params, stats = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    return jax.eval_shape(lambda params, stats: create(params, stats, stage, dict(own)), params, stats)
