"""Detectors of the end of a learning stage: pure state machines over losses, weight norms or drift.

    detector = window()
    state = detector.init()
    for _ in range(epochs):
        state, ended = detector.update(state, mean_training_loss_of_the_epoch)

Like an optax transformation, a detector is a few pure functions; they can be jitted, scanned and mapped over runs, and
the state is a NamedTuple of small arrays that any checkpoint holds.  This module imports nothing but jax, so it can be
used by itself; `autodecay` makes a learning-rate schedule of a detector.

The rule by which You et al. 2019 ("Learning Stages", arXiv 1908.01878v1) end a stage is not known.  `window` is a
reconstruction: what their abstract asks for, in its plainest form.  The others are published rules for the same end:

    plateau  PyTorch's ReduceLROnPlateau (mode min, threshold relative, no cooldown)
    slope    SLOPE of statopt (github.com/microsoft/statopt): a t test of the slope of the loss
    sasa     SASA+, Zhang, Lang, Liu & Xiao 2020 ("Statistical adaptive stochastic gradient methods"), as in statopt
    abel     ABEL, Lewkowycz 2021 ("How to decay your learning rate", arXiv 2103.12682): bounces of the weight norm
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

State = Any
Number = jax.typing.ArrayLike

EPOCH_LOSS, LOSS, DRIFT, WEIGHT_NORM = "epoch_loss", "loss", "drift", "weight_norm"
TINY = 1e-30
UPDATES = 1000  # that slope and sasa look at before a stage may end, as in statopt


class Detector(NamedTuple):
    """A detector as three functions and what it wants to be shown.

    init: () -> state, with no learning stage begun.
    update: (state, value, due=True) -> (state, ended), after an epoch, or after an update; `due` says that an epoch
        ends with it, and only then a stage may end.  A stage that has ended leaves a state that waits for the next.
        A value that is not finite is passed over as if it had not been shown (but `plateau` takes it for no gain).
    restart: state -> state, when something else has ended the stage.
    looks_at: `epoch_loss`, the mean training loss of an epoch, or `weight_norm`, the squared norm of all weights; both
        count where `due` only.  `loss`, the training loss of an update, or `drift`, see the function.
    """

    init: Callable[[], State]
    update: Callable[..., tuple[State, Array]]
    restart: Callable[[State], State]
    looks_at: str


def drift(params: Any, updates: Any, learning_rate: Number) -> Array:
    """<x', d> + learning_rate/2 |d|^2, where d is the step of `params` x to x' = x + `updates` = x - learning_rate d.

    It is (|x|^2 - |x'|^2) / (2 learning_rate), so its mean is zero where the weights have come to a stationary
    distribution (SASA+).  Weight decay and momentum are in `updates`.  At a learning rate of 0, with which a
    warm-up begins, nothing moves and it is 0.
    """
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)
    moved = -jnp.sum(jnp.stack([jnp.vdot(x, u) + jnp.vdot(u, u) / 2 for x, u in pairs]))
    return jnp.where(learning_rate == 0, 0.0, moved / jnp.where(learning_rate == 0, 1.0, learning_rate))


class WindowState(NamedTuple):
    """values: float32 [2 W], the last ones, the newest last.  seen: int32, how many there were in this stage."""

    values: Array
    seen: Array


def window(epochs: int = 5, rtol: Number = 0.01, atol: Number = 1e-3, z: Number = 0.0, least: Number = 0) -> Detector:
    """Ends a stage when the mean of the last `epochs` values is hardly below that of as many before them.

    Hardly: old - new < rtol |old| + atol + z se, with the standard error se of old - new.  `atol` is for the last
    stage, where the loss goes to zero and its relative gain never ends.  No stage ends before twice as many values, or
    `least` if that is more.
    """

    def init() -> WindowState:
        return WindowState(jnp.zeros(2 * epochs, jnp.float32), jnp.int32(0))

    def update(state: WindowState, value: Number, due: Number = True) -> tuple[WindowState, Array]:
        values = jnp.append(state.values[1:], value).astype(jnp.float32)
        epochs_seen = state.seen + 1
        old, new = values[:epochs], values[epochs:]
        error = jnp.sqrt(sum(jnp.var(half, ddof=min(1, epochs - 1)) for half in (old, new)) / epochs)
        gain, enough = old.mean() - new.mean(), rtol * jnp.abs(old.mean()) + atol + z * error
        counts = _all(due, jnp.isfinite(value))
        ended = _all(counts, epochs_seen >= jnp.maximum(2 * epochs, least), gain < enough)
        return _choose(ended, init(), _choose(counts, WindowState(values, epochs_seen), state)), ended

    return Detector(init, update, lambda state: init(), EPOCH_LOSS)


class PlateauState(NamedTuple):
    """best: float32, the lowest value ever.  bad: int32, how many values in a row were no better."""

    best: Array
    bad: Array


def plateau(patience: Number = 10, rtol: Number = 0.01) -> Detector:
    """Ends a stage at the first value beyond `patience` in a row that are not below (1 - rtol) times the best.

    The best value outlives the stage, as in PyTorch, whose own rtol is 1e-4; `optax.contrib.reduce_on_plateau` has a
    patience of one more.
    """

    def init() -> PlateauState:
        return PlateauState(jnp.float32(jnp.inf), jnp.int32(0))

    def update(state: PlateauState, value: Number, due: Number = True) -> tuple[PlateauState, Array]:
        better = _all(jnp.isfinite(value), value < (1 - rtol) * state.best)
        best, bad = jnp.where(better, value, state.best), jnp.where(better, 0, state.bad + 1)
        ended = _all(due, bad > patience)
        new = PlateauState(best.astype(jnp.float32), jnp.where(ended, 0, bad))
        return _choose(due, new, state), ended

    return Detector(init, update, lambda state: state._replace(bad=jnp.zeros_like(state.bad)), EPOCH_LOSS)


class AbelState(NamedTuple):
    """norms: float32 [2], the last value and the one before.  seen: int32 of values.  low: bool, it has turned once."""

    norms: Array
    seen: Array
    low: Array


def abel() -> Detector:
    """Ends a stage when the squared norm of the weights turns for the second time: it has fallen, risen, and turned.

    ABEL also decays once at a fixed time near the end; here the longest length of a stage does so.
    """

    def init() -> AbelState:
        return AbelState(jnp.zeros(2, jnp.float32), jnp.int32(0), jnp.bool_(False))

    def update(state: AbelState, value: Number, due: Number = True) -> tuple[AbelState, Array]:
        last, before = state.norms
        turned = _all(state.seen >= 2, (value - last) * (last - before) < 0)
        counts = _all(due, jnp.isfinite(value))
        ended = _all(counts, turned, state.low)
        norms = jnp.stack([jnp.asarray(value, jnp.float32), last])
        return _choose(counts, AbelState(norms, state.seen + 1, state.low ^ turned), state), ended

    return Detector(init, update, lambda state: state._replace(low=jnp.zeros_like(state.low)), WEIGHT_NORM)


class Samples(NamedTuple):
    """A ring of the last samples of a stage.  values: float32 [capacity].  seen: int32, how many there were."""

    values: Array
    seen: Array


def _no_samples(capacity: int) -> Samples:
    return Samples(jnp.zeros(capacity, jnp.float32), jnp.int32(0))


def _with(samples: Samples, value: Number) -> Samples:
    values, finite = jnp.asarray(samples.values), jnp.isfinite(value)
    place = samples.seen % len(values)
    return Samples(values.at[place].set(jnp.where(finite, value, values[place])), samples.seen + finite)


def _recent(samples: Samples, keep: Number) -> tuple[Array, Array, Array]:
    """(values [capacity], oldest first; which of them count; how many): the last share `keep` of all samples."""
    capacity = len(samples.values)
    kept = jnp.minimum(jnp.ceil(keep * samples.seen).astype(jnp.int32), capacity)
    order = jnp.arange(capacity)
    return samples.values[(samples.seen - kept + order) % capacity], order < kept, kept


def slope(keep: Number = 1 / 8, least: Number = UPDATES, significance: Number = 0.05, capacity: int = 4096) -> Detector:
    """Ends a stage unless the slope of the loss over the updates is below zero, by a one-sided t test.

    The line is fitted to the last share `keep` of the stage's updates, at least `least` and at most `capacity` of
    them.  statopt adds the penalty of the weights to the loss; here the loss is as it is given.
    """

    def update(state: Samples, value: Number, due: Number = True) -> tuple[Samples, Array]:
        state = _with(state, value)

        def falls_no_more() -> Array:
            y, valid, kept = _recent(state, keep)
            n = kept.astype(jnp.float32)
            x = jnp.where(valid, jnp.arange(len(y)) - (n - 1) / 2, 0.0)
            y = jnp.where(valid, y - jnp.sum(jnp.where(valid, y, 0.0)) / n, 0.0)
            spread = jnp.sum(x * x)
            fitted = jnp.sum(x * y) / spread
            rest = jnp.sum(jnp.square(y - fitted * x)) / (n - 2)
            t = fitted / jnp.maximum(jnp.sqrt(rest / spread), TINY)
            return _all(kept >= jnp.maximum(least, 3), t >= -student(1 - significance, n - 2))

        ended = jax.lax.cond(due, falls_no_more, lambda: jnp.bool_(False))
        return _choose(ended, _no_samples(capacity), state), ended

    return Detector(lambda: _no_samples(capacity), update, lambda state: _no_samples(capacity), LOSS)


class SasaState(NamedTuple):
    """samples: of the drift.  first: bool, no stage has ended so far."""

    samples: Samples
    first: Array


def sasa(keep: Number = 1 / 8, least: Number = UPDATES, significance: Number = 0.05, capacity: int = 4096) -> Detector:
    """Ends a stage when the mean drift cannot be told from zero, by an interval from batch means.

    Looked at is the last share `keep` of the stage's updates, at least `least` and at most `capacity` of them.  Both
    halves must have means of one sign, and the first time both must have zero in their interval.  SASA+ also forgets
    the momentum then; here a detector only says when.
    """
    batches = int(capacity**0.5) + 3  # the most batch means that there can be

    def init() -> SasaState:
        return SasaState(_no_samples(capacity), jnp.bool_(True))

    def update(state: SasaState, value: Number, due: Number = True) -> tuple[SasaState, Array]:
        samples = _with(state.samples, value)

        def is_stationary() -> Array:
            y, valid, kept = _recent(samples, keep)
            order, n = jnp.arange(len(y)), kept.astype(jnp.float32)
            size = jnp.maximum(jnp.floor(jnp.sqrt(n)), 1.0).astype(jnp.int32)
            count = kept // size
            mean = _mean(y, valid)
            batch = jnp.where(valid & (order < count * size), order // size, batches)
            means = jax.ops.segment_sum(y, batch, batches + 1)[:batches] / size
            squares = jnp.sum(jnp.where(jnp.arange(batches) < count, jnp.square(means - mean), 0.0))
            error = jnp.sqrt(size * squares / jnp.maximum(count - 1, 1) / n)
            half = error * student(1 - significance / 2, jnp.maximum(size - 1, 1))
            early, late = _mean(y, valid & (order < kept // 2)), _mean(y, valid & (order >= kept // 2))
            inside = jnp.where(state.first, jnp.maximum(jnp.abs(early), jnp.abs(late)), jnp.abs(mean)) < half
            return _all(kept >= jnp.maximum(least, 4), inside, early * late > 0)

        ended = jax.lax.cond(due, is_stationary, lambda: jnp.bool_(False))
        samples = _choose(ended, _no_samples(capacity), samples)
        return SasaState(samples, state.first & ~ended), ended

    return Detector(init, update, lambda state: SasaState(_no_samples(capacity), jnp.zeros_like(state.first)), DRIFT)


def student(p: Number, df: Number) -> Array:
    """The quantile p of Student's t with `df` degrees of freedom, by the series of Abramowitz & Stegun 26.7.5.

    For p from 0.9 to 0.995 it is within 0.3 % from df = 4 on.
    """
    z, df = jax.scipy.special.ndtri(jnp.asarray(p, jnp.float32)), jnp.asarray(df, jnp.float32)
    terms = [
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return jnp.sum(jnp.stack([term / df**power for power, term in enumerate(terms)]), axis=0)


def _mean(values: Array, there: Array) -> Array:
    return jnp.sum(jnp.where(there, values, 0.0)) / jnp.maximum(jnp.sum(there), 1)


def _all(*conditions: Number) -> Array:
    return jnp.all(jnp.stack([jnp.asarray(condition) for condition in conditions]))


def _choose(condition: Number, new: State, old: State) -> State:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
