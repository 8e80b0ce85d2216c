"""Training and evaluating ONE run.  Seeds, sweeps and devices are added outside, in `runs`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from plasticity_jax import runs, sampling, stages
from plasticity_jax.optim import Hyper, multiplier, optimiser
from plasticity_jax.sampling import Leaf, Source
from plasticity_jax.state import TrainState

Array = jax.Array
Batch = Mapping[str, Any]
Metrics = dict[str, Array]
Diagnostic = Callable[[TrainState, Batch], Metrics]


class Task(NamedTuple):
    """What one run does in a stage, as data: a row of the run axis.

    key: the seed's key of the stage (by its name); source: its pool; hyper: its optimiser's numbers.
    steps: int32, the length of the stage; epoch_steps: int32, steps in one epoch of its pool.
    until_accuracy: float32, the running train accuracy (share) that ends the stage; 0 for never.
    """

    key: Leaf
    source: Source
    hyper: Hyper
    steps: Leaf
    epoch_steps: Leaf
    until_accuracy: Leaf


class Images(NamedTuple):
    """The images of a data set, uint8 [N, H, W, C], and its float32 [C] mean and deviation."""

    images: Leaf
    mean: Leaf
    std: Leaf

    def take(self, indices: Array) -> Array:
        """float32 [B, H, W, C], normalised."""
        return sampling.normalise(self.images[indices], self.mean, self.std)


def forward(model: nn.Module, params: Any, stats: Any, images: Array, train: bool) -> tuple[Array, dict, Any]:
    """(logits [B, classes], features, statistics after a batch in train mode).

    An own module may return the logits alone.
    """
    variables = {"params": params, **({"batch_stats": stats} if stats else {})}
    if train and stats:
        out, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        stats = updates["batch_stats"]
    else:
        out = model.apply(variables, images, train=train)
    logits, features = out if isinstance(out, tuple) else (out, {})
    return logits, features, stats


def train_step(
    state: TrainState, batch: Batch, *, model: nn.Module, spec: stages.Optim, hyper: Hyper, done: Array
) -> tuple[TrainState, Metrics]:
    """One optimiser step on `batch` (image float32 [B, H, W, C], label int32 [B]).

    `done` is the share of the stage that lies behind, for the schedule.
    Returns the new state and the sums `loss`, `correct`, `count` over the batch before the update.
    """

    def loss_of(params: Any) -> tuple[Array, tuple[Array, Any]]:
        logits, _, stats = forward(model, params, state.stats, batch["image"], train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        return loss, (logits, stats)

    (loss, (logits, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    tx = optimiser(spec, hyper, hyper.learning_rate * multiplier(spec.schedule, hyper, done))
    updates, opt = tx.update(grads, state.opt, state.params)
    count = jnp.float32(batch["label"].size)
    correct = jnp.sum(jnp.argmax(logits, -1) == batch["label"]).astype(jnp.float32)
    new = state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates), stats=stats, opt=opt)
    return new, {"loss": loss * count, "correct": correct, "count": count}


def advance(
    state: TrainState, row: tuple[Task, Array], images: Images, *, model: nn.Module, stage: stages.Stage
) -> TrainState:
    """Train one run on its `row` (task, until) up to step `until`, but not beyond the stage or one epoch of steps.

    The number of steps is data, so one program serves every length, and the result does not depend on how a
    stage is cut into calls.
    """
    task, until = row
    first_epoch = state.step // task.epoch_steps
    order_key = jax.random.fold_in(task.key, 0)
    batch_key = jax.random.fold_in(task.key, 1)
    augment_key = jax.random.fold_in(task.key, 2)
    stop = jnp.minimum(jnp.minimum(until, task.steps), state.step + task.epoch_steps)
    draw = functools.partial(sampling.permutations, order_key, count=1, source=task.source)
    order = draw(first_epoch)
    into_next = (stop - 1) // task.epoch_steps > first_epoch  # else a second sort would be for nothing
    orders = jnp.concatenate([order, jax.lax.cond(into_next, draw, lambda _: order, first_epoch + 1)])

    def body(state: TrainState) -> TrainState:
        epoch, position = state.step // task.epoch_steps, state.step % task.epoch_steps
        order = orders[epoch - first_epoch]
        slots = sampling.batch_slots(batch_key, order, state.step, task.steps, position, stage.batch_size, task.source)
        slots = runs.split(slots)
        pixels = images.images[task.source.indices[slots]]
        if stage.augment:
            pixels = sampling.augment(jax.random.fold_in(augment_key, state.step), pixels)
        image = sampling.normalise(pixels, images.mean, images.std)
        batch = {"image": image, "label": task.source.labels[slots]}
        share = state.step / task.steps
        state, sums = train_step(state, batch, model=model, spec=stage.optim, hyper=task.hyper, done=share)
        return count_epoch(state, sums, task, position + 1 == task.epoch_steps)

    return jax.lax.while_loop(lambda s: (s.step < stop) & ~s.done, body, state)


def count_epoch(state: TrainState, sums: Metrics, task: Task, epoch_ends: Array) -> TrainState:
    """Add a step's sums to the epoch's, close the epoch where it ends, and decide whether the run is done."""
    tally = state.tally + jnp.stack([sums["loss"], sums["correct"], sums["count"]])
    running = jnp.stack([tally[0], 100.0 * tally[1]]) / tally[2]
    last = jnp.where(epoch_ends, running, state.last)
    reached = epoch_ends & (task.until_accuracy > 0) & (last[1] >= 100.0 * task.until_accuracy)
    failed = ~jnp.isfinite(sums["loss"])
    return state.replace(
        tally=jnp.where(epoch_ends, 0.0, tally),
        last=last,
        done=reached | failed | (state.step >= task.steps),
        failed=failed,
    )


def evaluate(
    state: TrainState, source: Source, first: Array, images: Images, *, model: nn.Module, batch: int
) -> Metrics:
    """Sums of `loss`, `correct` and `count` over slots first .. first + batch of `source`, masked behind its size."""
    slots = runs.split(first + jnp.arange(batch))
    mask = slots < source.size
    slots = jnp.minimum(slots, source.size - 1)
    labels = source.labels[slots]
    logits, _, _ = forward(model, state.params, state.stats, images.take(source.indices[slots]), train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        "loss": jnp.sum(jnp.where(mask, losses, 0.0)),
        "correct": jnp.sum(mask & (jnp.argmax(logits, -1) == labels)).astype(jnp.float32),
        "count": jnp.sum(mask).astype(jnp.float32),
    }


def diagnose(
    state: TrainState,
    initial: Any,
    probe: Batch,
    images: Images,
    *,
    model: nn.Module,
    diagnostics: Mapping[str, Diagnostic],
) -> Metrics:
    """Every diagnostic of one run on the fixed `probe` images (`index` int32 [B], `label`), in eval mode.

    `initial` are the first weights of the run's seed.
    """
    image = images.take(runs.split(probe["index"]))
    logits, features, _ = forward(model, state.params, state.stats, image, train=False)
    batch = {"image": image, "label": probe["label"], "logits": logits, "features": features, "initial": initial}
    found: Metrics = {}
    for diagnostic in diagnostics.values():
        found |= diagnostic(state, batch)
    return found
