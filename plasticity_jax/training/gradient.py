"""The gradient of ONE run on a batch, for some or all modules, optionally accumulated over micro-batches.

Micro-batches bound the memory, so a batch may hold all images.  The gradient is the mean over micro-batches in a fixed
order.  BatchNorm uses the statistics of each micro-batch (ghost batches), and its running statistics make one step
towards their mean; without BatchNorm the result does not depend on the size of micro-batches.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from plasticity_jax import sharding
from plasticity_jax.config import spec
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import interface, jitter, parameters, units
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.remedies.interface import Seen
from plasticity_jax.training.state import TrainState

Tree = Any
Sums = dict[str, Any]
OUT = -1e9  # the logit of a class that the run does not use


def forward(
    model: nn.Module, params: Any, stats: Any, images: Array, train: bool, key: Array | None = None
) -> tuple[Array, dict, Any]:
    """(logits [B, classes], features, statistics after a batch in train mode).

    A custom network may return the logits alone.  `key` is for Dropout in train mode.
    """
    variables = {"params": params, **({"batch_stats": stats} if stats else {})}
    options = interface.mode(model, train)
    if train and key is not None:
        options["rngs"] = {"dropout": key}
    if train and stats:
        out, updates = model.apply(variables, images, mutable=["batch_stats"], **options)
        stats = updates["batch_stats"]
    else:
        out = model.apply(variables, images, **options)
    logits, features = out if isinstance(out, tuple) else (out, {})
    return logits, features, stats


def among(logits: Array, classes: Any) -> Array:
    """Logits [B, K], with `OUT` for classes that are not in `classes` (bool [K], or () for all)."""
    return logits if isinstance(classes, tuple) else jnp.where(classes, logits, OUT)


def cross_entropy(logits: Array, labels: Array, classes: Any, smoothing: Any) -> Array:
    """The loss of each example, [B]; `smoothing`, unless (), is the part of each label spread evenly over `classes`."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if isinstance(smoothing, tuple):
        return losses
    shares = jnp.ones(logits.shape[-1]) if isinstance(classes, tuple) else classes
    spread = -jnp.average(jax.nn.log_softmax(logits), -1, shares)
    return (1 - smoothing) * losses + smoothing * spread


def trained(params: Tree, modules: tuple[str, ...]) -> Tree:
    """Which leaves are trained: a bool for each."""
    return parameters.select(params, modules)


def try_out(model: nn.Module, params: Tree, stats: Tree, image_shape: tuple[int, ...]) -> None:
    """Traces a custom network in both modes, given the shapes of its parameters and statistics.

    Raises:
      ConfigError: it uses a random stream that is not provided.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    for train in (False, True):
        call = functools.partial(forward, model, train=train)
        try:
            jax.eval_shape(lambda p, s, x, call=call: call(p, s, x, key=jax.random.key(0)), params, stats, images)
        except flax.errors.InvalidRngError as error:
            where, line = "training" if train else "evaluation", str(error).partition(" (http")[0]
            raise ConfigError(
                f"model: {line} in {where}; random numbers are given in training only, as the stream 'dropout': "
                "nn.Dropout(rate, deterministic=not train)"
            ) from error


def gradient(
    state: TrainState,
    batch: Mapping[str, Array],
    classes: Any,
    *,
    model: nn.Module,
    stage: spec.Stage,
    key: Array | None = None,
    remedies: Any = (),
    time: Array | float = 0.0,
    custom: Custom = NONE,
    smoothing: Any = (),
    noise: Any = (),
) -> tuple[Tree, Sums, Tree]:
    """The gradient of the mean loss plus the terms of regularisers; zero for frozen modules.

    Args:
      batch: image float32 [B, H, W, C], label int32 [B]; B is a multiple of the micro-batch.
      classes: see `among`.
      key: of this step, for Dropout, folded for each micro-batch.  No Dropout while a module is frozen.
      smoothing: see `cross_entropy`.
      noise: standard deviation of the noise on activations, see `jitter`; none while a module is frozen.
      remedies, time: the numbers of the stage's remedies, and the fraction of the stage that is over.
      custom: remedies given from Python.

    Returns:
      (gradient like the parameters, sums `loss`, `correct` and `count` over the batch, statistics).  `loss` excludes
      the terms of regularisers.  With remedies the sums include `activity`, see `units.activity`.
    """
    leaves, structure = jax.tree.flatten(state.params)
    moves = jax.tree.leaves(trained(state.params, stage.trained))

    def loss_of(moving: list[Array], part: Mapping[str, Array], key: Array | None) -> tuple[Array, tuple[Sums, Tree]]:
        given = iter(moving)
        params = jax.tree.unflatten(
            structure, [next(given) if hit else leaf for hit, leaf in zip(moves, leaves, strict=True)]
        )
        with jitter.on_activations(noise if all(moves) else (), key):
            logits, features, stats = forward(model, params, state.stats, part["image"], all(moves), key)
        logits = among(logits, classes)
        loss = cross_entropy(logits, part["label"], classes, smoothing).mean()
        count = jnp.float32(part["label"].size)
        correct = jnp.sum(jnp.argmax(logits, -1) == part["label"]).astype(jnp.float32)
        sums = {"loss": loss * count, "correct": correct, "count": count}
        if stage.remedies:
            sums["activity"] = units.activity(features, units.sites(model), params)
            shown = part["image"], part["label"], logits, features, part.get("reference", part["image"])
            observed = Seen(params, state.stats, *shown, jnp.asarray(time), (), again)
            loss += apply.penalty(observed, state.remedy, remedies, stage, custom)
        return loss, (sums, stats)

    def again(params: Tree, stats: Tree, images: Array, train: bool) -> tuple[Array, Mapping[str, Array]]:
        logits, features, _ = forward(model, params, stats, images, train, key)
        return among(logits, classes), features

    moving = [leaf for hit, leaf in zip(moves, leaves, strict=True) if hit]
    slope = jax.grad(loss_of, has_aux=True)
    if stage.micro_batch:
        parts = jax.tree.map(lambda x: x.reshape(-1, stage.micro_batch, *x.shape[1:]), dict(batch))
        count = len(batch["label"]) // stage.micro_batch

        def add(total: Tree, numbered: tuple[Mapping[str, Array], Array]) -> tuple[Tree, None]:
            part, number = numbered
            part_key = None if key is None else jax.random.fold_in(key, number)
            return jax.tree.map(jnp.add, total, slope(moving, jax.tree.map(sharding.split, part), part_key)), None

        first = jax.tree.map(lambda x: x[0], parts)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(slope, moving, first, key))
        (slopes, (sums, stats)), _ = jax.lax.scan(add, nothing, (parts, jnp.arange(count)))
        slopes, stats = jax.tree.map(lambda x: x / count, (slopes, stats))
    else:
        slopes, (sums, stats) = slope(moving, batch, key)
    given = iter(slopes)
    grads = [next(given) if hit else jnp.zeros_like(leaf) for hit, leaf in zip(moves, leaves, strict=True)]
    return jax.tree.unflatten(structure, grads), sums, stats if all(moves) else state.stats
