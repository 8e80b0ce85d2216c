"""Training of ONE run.  `parallel` adds seeds, sweeps and devices."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from plasticity_jax import sharding
from plasticity_jax.config import spec
from plasticity_jax.data import batches, deficits, patches, tasks
from plasticity_jax.models import units
from plasticity_jax.training import detectors, resets, schedules
from plasticity_jax.training.autodecay import tick
from plasticity_jax.training.detectors import Detector
from plasticity_jax.training.gradient import among, forward, gradient, trained
from plasticity_jax.training.inputs import Images, Task
from plasticity_jax.training.optimizers import of_parameters, optimiser
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.remedies.interface import Network, Now, when
from plasticity_jax.training.schedules import multiplier
from plasticity_jax.training.state import TrainState, init_network

Array = jax.Array
Batch = Mapping[str, Any]
Metrics = dict[str, Array]
ORDER, BATCH, REFERENCE = 0, 1, 6  # uses of a stage's key that select the images of a step


def train_step(
    state: TrainState, batch: Batch, *, model: nn.Module, stage: spec.Stage, task: Task, custom: Custom = NONE
) -> tuple[TrainState, Metrics]:
    """One optimiser step on `batch` (image float32 [B, H, W, C], label int32 [B]).

    Returns the new state and the metrics: the sums `loss`, `correct` and `count` over the batch before the update, the
    `gradient_norm`, the `learning_rate`, and the quantity that the stage's detector tests, if it has one.
    `custom` are remedies given from Python.
    """
    draw = jax.random.fold_in(jax.random.fold_in(task.key, 4), state.step)  # for Dropout; `advance` uses 0 to 3
    given: dict[str, Any] = {"smoothing": task.smoothing}
    if stage.activation_noise:
        given["noise"] = task.noise * (1 - state.step / task.steps)
    if stage.remedies:
        given |= {"remedies": task.remedies, "time": state.step / task.steps, "custom": custom}

    def slope(params: Any) -> tuple[Any, dict[str, Any], Any]:
        at = state.replace(params=params)
        return gradient(at, batch, task.source.classes, model=model, stage=stage, key=draw, **given)

    grads, sums, stats = slope(state.params)
    activity = sums.pop("activity", {})
    time = state.step + (state.clock.skipped if state.clock else 0)  # position in the schedule
    rate = task.hyper.learning_rate * multiplier(stage.optim.schedule, task.hyper, time / task.steps)
    rule: Any = optimiser(stage.optim, task.hyper, rate)
    again: dict[str, Any] = {}
    if stage.optim.rho > 0:
        again["grad_fn"] = lambda params, _: slope(params)[0]
    updates, opt = rule.update(grads, state.opt, state.params, **again)
    # Frozen parameters keep their bits, as do their moments and average, even if the optimiser changes them at gradient
    # 0.
    frozen = jax.tree.map(operator.not_, trained(state.params, stage.trained))
    updates = _hold(frozen, optax.tree.zeros_like(updates), updates)
    params = _hold(frozen, state.params, optax.apply_updates(state.params, updates))
    opt = _hold(of_parameters(opt, frozen), state.opt, opt)
    if stage.remedies:
        now = _now(state, batch, rate, grads, sums["count"], activity, model, task)
        network = apply.after_step(Network(params, stats, opt, state.remedy), now, task.remedies, stage, custom)
        params, opt = _hold(frozen, params, network.params), _hold(of_parameters(opt, frozen), opt, network.opt)
        stats = stats if any(jax.tree.leaves(frozen)) else network.stats
        state = state.replace(remedy=network.memory)
    new = state.replace(step=state.step + 1, params=params, stats=stats, opt=opt)
    if stage.ema:
        average = jax.tree.map(lambda old, now: task.ema * old + (1 - task.ema) * now, state.average, (params, stats))
        unmoved = jax.tree.map(lambda _: any(jax.tree.leaves(frozen)), stats)
        new = new.replace(average=_hold((frozen, unmoved), state.average, average))
    metrics = sums | {"gradient_norm": optax.tree.norm(grads), "learning_rate": rate}
    if detector := schedules.detector(stage.optim):
        # The barrier keeps XLA from fusing this into the update, whose bits would change.
        params, updates = jax.lax.optimization_barrier((params, updates))
        match detector.looks_at:
            case detectors.WEIGHT_NORM:
                metrics[detector.looks_at] = jnp.square(optax.tree.norm(params))
            case detectors.DRIFT:
                metrics[detector.looks_at] = detectors.drift(state.params, updates, rate)
    return new, metrics


def _now(
    state: TrainState, batch: Batch, rate: Any, grads: Any, count: Array, activity: Any, model: nn.Module, task: Task
) -> Now:
    """The `Now` of remedies after the step that follows `state`."""
    dropping = jax.random.fold_in(jax.random.fold_in(task.key, 4), state.step)

    def again(params: Any, stats: Any, images: Array, train: bool) -> tuple[Array, Mapping[str, Array]]:
        logits, features, _ = forward(model, params, stats, images, train, dropping)
        return among(logits, task.source.classes), features

    return Now(
        step=state.step + 1,
        key=jax.random.fold_in(jax.random.fold_in(task.key, 5), state.step),
        rate=rate,
        before=state.params,
        grads=grads,
        images=batch["image"],
        examples=count,
        activity=activity,
        sites=units.sites(model),
        fresh=functools.partial(init_network, model, image_shape=batch["image"].shape[1:]),
        forward=again,
    )


def _hold(held: Any, old: Any, new: Any) -> Any:
    """The leaves of `old` where `held` is true, else those of `new`."""
    return jax.tree.map(lambda hold, before, after: before if hold else after, held, old, new)


def advance(
    state: TrainState,
    row: tuple[Task, Array],
    images: Images,
    *,
    model: nn.Module,
    stage: spec.Stage,
    custom: Custom = NONE,
) -> TrainState:
    """Trains one run of `row` (task, until) up to step `until`, but at most to the end of the stage and for one epoch.

    The number of steps is traced, so one program serves every length.  The result does not depend on how a stage is
    divided into calls.
    """
    task, until = row
    first_epoch = state.step // task.epoch_steps
    order_key, batch_key, reference_key = (jax.random.fold_in(task.key, use) for use in (ORDER, BATCH, REFERENCE))
    augment_key = jax.random.fold_in(task.key, 2)
    patch_key = jax.random.fold_in(task.key, 3)  # `train_step` uses 4 and 5
    stop = jnp.minimum(jnp.minimum(until, task.steps), state.step + task.epoch_steps)
    draw = functools.partial(batches.permutations, order_key, count=1, source=task.source)
    order = draw(first_epoch)
    into_next = (stop - 1) // task.epoch_steps > first_epoch  # otherwise the second permutation is not needed
    orders = jnp.concatenate([order, jax.lax.cond(into_next, draw, lambda _: order, first_epoch + 1)])

    detector, stream = schedules.detector(stage.optim, task.watch), task.source.tasks

    first_task = state.step // stream.steps if stream else 0
    sites = images.shape[0] * images.shape[1] if tasks.moves(stream) else 0
    places = jnp.stack([tasks.order(stream, first_task + i, sites) for i in (0, 1)]) if sites else None

    def body(state: TrainState) -> TrainState:
        state = _between_tasks(state, task, images, model)
        epoch, position = state.step // task.epoch_steps, state.step % task.epoch_steps
        order = orders[epoch - first_epoch]
        slots = batches.batch_slots(batch_key, order, state.step, task.steps, position, stage.batch_size, task.source)
        slots = sharding.split(slots)
        indices, label = task.source.indices[slots], task.source.labels[slots]
        if stage.augment == "none":
            pixels = images.seen(indices)
        else:
            pixels = images.augmented(jax.random.fold_in(augment_key, state.step), indices, stage.augment)
        number = state.step // stream.steps if stream else 0
        here = None if places is None else places[number - first_task]
        pixels, label = tasks.seen(stream, number, pixels, label, indices, here)
        image = deficits.seen(stage.data.deficit, batches.normalise(pixels, images.mean, images.std))
        if task.source.patches:
            draw, numbers = jax.random.fold_in(patch_key, state.step), jnp.arange(len(slots))
            image = patches.paste(task.source.patches, draw, numbers, slots, image, label)
        batch = {"image": image, "label": label}
        if stage.remedies:
            others = sharding.split(batches.references(reference_key, state.step, len(slots), task.source))
            reference = images.seen(task.source.indices[others])
            reference = reference if here is None else tasks.moved(reference, here)
            reference = batches.normalise(reference, images.mean, images.std)
            batch["reference"] = deficits.seen(stage.data.deficit, reference)
        state, metrics = train_step(state, batch, model=model, stage=stage, task=task, custom=custom)
        return count_epoch(state, metrics, task, position + 1 == task.epoch_steps, detector)

    return jax.lax.while_loop(lambda s: (s.step < stop) & ~s.done, body, state)


def _between_tasks(state: TrainState, task: Task, images: Images, model: nn.Module) -> TrainState:
    """Repeats the stage's reset at the start of the second and every later task of a stream."""
    if not task.reset:
        return state
    number = state.step // task.source.tasks.steps
    key = jax.random.fold_in(jax.random.fold_in(task.key, 9), number)  # 6 to 8: references, starts, sweeps

    def reset(state: TrainState) -> TrainState:
        return resets.again(state, *init_network(model, key, images.shape), task.reset)

    return when((number > 0) & (state.step % task.source.tasks.steps == 0), reset, state)


def count_epoch(
    state: TrainState, metrics: Metrics, task: Task, epoch_ends: Array, detector: Detector | None = None
) -> TrainState:
    """Adds a step's metrics to those of the epoch, finishes the epoch if it ends, and sets `done` and `failed`."""
    tally = state.tally + jnp.stack([metrics[name] for name in ("loss", "correct", "count", "gradient_norm")])
    loss, accuracy = tally[0] / tally[2], 100.0 * tally[1] / tally[2]
    running = jnp.stack([loss, accuracy, tally[3] / task.epoch_steps, metrics["learning_rate"]])
    last = jnp.where(epoch_ends, running, state.last)
    reached = epoch_ends & (task.until_accuracy > 0) & (last[1] >= 100.0 * task.until_accuracy)
    failed = ~jnp.isfinite(metrics["loss"])
    time = state.step
    if detector:
        shown = {detectors.EPOCH_LOSS: loss, detectors.LOSS: metrics["loss"] / metrics["count"]} | metrics
        value, watch = shown[detector.looks_at], task.watch
        clock = tick(state.clock, state.step, task.starts, task.steps, detector, value, epoch_ends, watch.end_last)
        state, time = state.replace(clock=clock), time + clock.skipped
    return state.replace(
        tally=jnp.where(epoch_ends, 0.0, tally),
        last=last,
        done=reached | failed | (time >= task.steps),
        failed=failed,
    )
