"""Instruments applied to ONE run: its state as a `Subject`.

The loss is the cross-entropy with the run's training labels, without terms of regularisers and weight decay; images are
not augmented.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.data import deficits, tasks
from plasticity_jax.diagnostics.subject import PART, Part, Remembering, Subject
from plasticity_jax.models import products
from plasticity_jax.training import step
from plasticity_jax.training.gradient import among, forward
from plasticity_jax.training.inputs import Images, Task
from plasticity_jax.training.optimizers import scales
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.schedules import multiplier
from plasticity_jax.training.state import TrainState

Tree = Any
Instrument = Callable[[Subject], dict[str, Array]] | Remembering


class Measured(NamedTuple):
    """The inputs for measuring one run other than its state: a row of the run axis.

    probe: the images.  initial, parent, has_parent: as in `Subject`.
    due: bool, whether the run is measured now.  memory: of the instrument; () if it has none.
    """

    task: Task
    probe: Part
    initial: Tree
    parent: Tree
    has_parent: Any
    due: Any
    memory: Tree = ()


def measure(
    state: TrainState,
    row: Measured,
    images: Images,
    *,
    model: nn.Module,
    stage: spec.Stage,
    instrument: Instrument,
    custom: Custom = NONE,
) -> tuple[dict[str, Array], Tree]:
    """({name: float32 scalar}, memory) of an instrument; NaN and the old memory if the run is not due."""

    def now() -> tuple[dict[str, Array], Tree]:
        with jax.default_matmul_precision("float32"):
            subject = subject_of(state, row, images, model=model, stage=stage, custom=custom)
            if isinstance(instrument, Remembering):
                return instrument.measure(subject)
            return instrument(subject), ()

    like = jax.eval_shape(now)

    def never() -> tuple[dict[str, Array], Tree]:
        return {name: jnp.full(value.shape, jnp.nan, value.dtype) for name, value in like[0].items()}, row.memory

    return jax.lax.cond(row.due, now, never)


def subject_of(
    state: TrainState, row: Measured, images: Images, *, model: nn.Module, stage: spec.Stage, custom: Custom = NONE
) -> Subject:
    """The `Subject` of a run."""
    task, network = row.task, whole(model)
    stream = task.source.tasks
    number = tasks.learned(stream, state.step) if stream else 0

    def seen(part: Part) -> tuple[Array, Array]:
        image, label = tasks.seen(stream, number, images.take(part.index), part.label, part.index)
        return deficits.seen(stage.data.deficit, image), label

    def of_logits(logits: Array, label: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    def looked(stats: Tree, params: Tree, part: Part) -> tuple[Array, dict[str, Array]]:
        with products.plain():
            logits, features, _ = forward(network, params, stats, seen(part)[0], train=False)
        return among(logits, task.source.classes), features

    def at(params: Tree) -> Subject:
        stats = settled(network, params, state.stats, lambda part: seen(part)[0], base)
        see = functools.partial(looked, stats)
        return dataclasses.replace(
            base,
            params=params,
            losses=lambda params, part: of_logits(see(params, part)[0], seen(part)[1]),
            logits=lambda params, part: see(params, part)[0],
            features=lambda params, part: see(params, part)[1],
        )

    def following() -> Subject:
        after = step.advance(state, (task, state.step + 1), images, model=model, stage=stage, custom=custom)
        return at(after.params)

    time = state.step + (state.clock.skipped if state.clock else 0)
    draws = jax.random.fold_in(jax.random.fold_in(task.key, 10), state.step)  # 0 to 9 are those of `step` and `begin`
    may_divide = scales(stage.optim, task.hyper, state.opt, state.params) is not None
    base = Subject(
        params=state.params,
        probe=row.probe,
        losses=lambda params, part: jnp.zeros(()),
        logits=lambda params, part: jnp.zeros(()),
        of_logits=of_logits,
        key=draws,
        initial=row.initial,
        parent=row.parent,
        has_parent=row.has_parent,
        rate=task.hyper.learning_rate * multiplier(stage.optim.schedule, task.hyper, time / task.steps),
        batch_size=stage.batch_size,
        scales=(lambda square: scales(stage.optim, task.hyper, state.opt, square)) if may_divide else None,
        at=at,
        following=following,
        memory=row.memory,
    )
    return at(state.params)


def whole(model: nn.Module) -> nn.Module:
    """The network with float32 computation, whatever dtype it trains in."""
    narrow = any(field.name == "dtype" for field in dataclasses.fields(model))
    return model.clone(dtype=jnp.dtype("float32")) if narrow else model


def settled(model: nn.Module, params: Tree, stats: Tree, images: Callable[[Part], Array], subject: Subject) -> Tree:
    """The running statistics that a network would converge to on the subject's images: means over parts of them.

    The statistics of a part follow from the update new = m old + (1 - m) part, applied to an `old` of 0 and of 1.
    Statistics that are not updated in this way are kept.
    """
    if not stats:
        return stats

    def after(part: Part) -> tuple[Tree, Tree]:
        def from_(old: Array) -> Tree:
            begin = jax.tree.map(lambda leaf: jnp.full(leaf.shape, old, leaf.dtype), stats)
            return forward(model, params, begin, images(part), train=True, key=subject.key)[2]

        both = jax.vmap(from_)(jnp.arange(2.0))  # costs one pass, since only the old statistics differ
        return jax.tree.map(lambda leaf: leaf[0], both), jax.tree.map(lambda leaf: leaf[1], both)

    parts = len(subject.probe.label) // subject.size(PART)

    def add(totals: tuple[Tree, Tree], part: Part) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda total, leaf: total + leaf / parts, totals, after(part))

    zeros = jax.tree.map(jnp.zeros_like, stats)
    zero, one = subject.over(add, (zeros, zeros))

    def solved(kept: Array, zero: Array, one: Array) -> Array:
        moved = 1 - (one - zero)  # 1 - m
        steps = (moved > 1e-6) & (moved <= 1)
        return jnp.where(steps, zero / jnp.where(steps, moved, 1.0), kept)

    return jax.tree.map(solved, stats, zero, one)
