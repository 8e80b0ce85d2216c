"""Detectors of the end of a learning stage: pure state machines over losses, weight norms or a drift statistic.

    detector = window()
    state = detector.init()
    for _ in range(epochs):
        state, ended = detector.update(state, mean_training_loss_of_the_epoch)

Like an optax transformation, a detector is a tuple of pure functions, which can be jitted, scanned and mapped over
runs; the state is a NamedTuple of small arrays.  This module imports only jax, so it can be used alone; `autodecay`
turns a detector into a learning-rate schedule.

The rule by which You et al. 2019 ("Learning Stages", arXiv 1908.01878v1) end a stage is not published.  `window` is a
reconstruction: the simplest rule that fits their abstract.  The others are published rules for the same purpose:

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
UPDATES = 1000  # smallest number of updates before slope and sasa end a stage, as in statopt


class Detector(NamedTuple):
    """Three functions, and the name of the quantity that they test.

    init: () -> state at the start of training.
    update: (state, value, due=True) -> (state, ended), called after each update or epoch.  `due`: an epoch ends with
        this update; a stage may end only then.  After `ended` the state is that of a new stage.  Values that are not
        finite are ignored (`plateau` counts them as no gain).
    restart: state -> state, called when a stage ends for another reason.
    looks_at: the quantity: `epoch_loss`, the mean training loss of an epoch, or `weight_norm`, the squared norm of all
        weights, both used only if `due`; `loss`, the training loss of an update; or `drift`, see that function.
    """

    init: Callable[[], State]
    update: Callable[..., tuple[State, Array]]
    restart: Callable[[State], State]
    looks_at: str


def drift(params: Any, updates: Any, learning_rate: Number) -> Array:
    """<x', d> + learning_rate/2 |d|^2, where d is the step of `params` x to x' = x + `updates` = x - learning_rate d.

    It equals (|x|^2 - |x'|^2) / (2 learning_rate), so its mean is zero once the weights have a stationary distribution
    (SASA+).  `updates` include weight decay and momentum.  The result is 0 for a learning rate of 0, as in the first
    step of a warm-up.
    """
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)
    moved = -jnp.sum(jnp.stack([jnp.vdot(x, u) + jnp.vdot(u, u) / 2 for x, u in pairs]))
    return jnp.where(learning_rate == 0, 0.0, moved / jnp.where(learning_rate == 0, 1.0, learning_rate))


class WindowState(NamedTuple):
    """values: float32 [2 W], the most recent, newest last.  seen: int32, the number of values in this stage."""

    values: Array
    seen: Array


def window(epochs: int = 5, rtol: Number = 0.01, atol: Number = 1e-3, z: Number = 0.0, least: Number = 0) -> Detector:
    """Ends a stage when the mean of the last `epochs` values is not sufficiently below that of the `epochs` before.

    That is old - new < rtol |old| + atol + z se, with the standard error se of old - new.  `atol` matters in the last
    stage, where the loss goes to zero and its relative decrease never ends.  No stage ends before 2 `epochs` values, or
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
    """best: float32, the lowest value so far.  bad: int32, number of successive values that were no better."""

    best: Array
    bad: Array


def plateau(patience: Number = 10, rtol: Number = 0.01) -> Detector:
    """Ends a stage after more than `patience` successive values that are not below (1 - rtol) times the best.

    The best value is kept across stages, as in PyTorch, whose default rtol is 1e-4; `optax.contrib.reduce_on_plateau`
    waits for one value more.
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
    """norms: float32 [2], the last value and the one before.  seen: int32, their number.  low: bool, after one turn."""

    norms: Array
    seen: Array
    low: Array


def abel() -> Detector:
    """Ends a stage when the squared norm of the weights changes direction for the second time.

    ABEL also decays once at a fixed time near the end; here that is the largest length of a stage.
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
    """A ring buffer of the most recent samples of a stage.  values: float32 [capacity].  seen: int32, number of all."""

    values: Array
    seen: Array


def _no_samples(capacity: int) -> Samples:
    return Samples(jnp.zeros(capacity, jnp.float32), jnp.int32(0))


def _with(samples: Samples, value: Number) -> Samples:
    values, finite = jnp.asarray(samples.values), jnp.isfinite(value)
    place = samples.seen % len(values)
    return Samples(values.at[place].set(jnp.where(finite, value, values[place])), samples.seen + finite)


def _recent(samples: Samples, keep: Number) -> tuple[Array, Array, Array]:
    """The last fraction `keep` of all samples: (values [capacity], valid: bool [capacity], count).

    The oldest value comes first.
    """
    capacity = len(samples.values)
    kept = jnp.minimum(jnp.ceil(keep * samples.seen).astype(jnp.int32), capacity)
    order = jnp.arange(capacity)
    return samples.values[(samples.seen - kept + order) % capacity], order < kept, kept


def slope(keep: Number = 1 / 8, least: Number = UPDATES, significance: Number = 0.05, capacity: int = 4096) -> Detector:
    """Ends a stage unless the slope of the loss over updates is significantly negative, by a one-sided t test.

    The line is fitted to the last fraction `keep` of the stage's updates, at least `least` and at most `capacity` of
    them.  statopt adds the weight penalty to the loss; here the loss is used as given.
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
    """samples: of the drift.  first: bool, whether no stage has ended yet."""

    samples: Samples
    first: Array


def sasa(keep: Number = 1 / 8, least: Number = UPDATES, significance: Number = 0.05, capacity: int = 4096) -> Detector:
    """Ends a stage when the mean drift does not differ significantly from zero, by an interval from batch means.

    The test uses the last fraction `keep` of the stage's updates, at least `least` and at most `capacity` of them.
    Both halves must have means of equal sign, and at the end of the first stage zero must be in the interval of both.
    SASA+ also resets the momentum; this detector does not.
    """
    batches = int(capacity**0.5) + 3  # upper bound of the number of batch means

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

    The relative error is below 0.3 % for p from 0.9 to 0.995 and df of 4 or more.
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


def _mean(values: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def _all(*conditions: Number) -> Array:
    return jnp.all(jnp.stack([jnp.asarray(condition) for condition in conditions]))


def _choose(condition: Number, new: State, old: State) -> State:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
