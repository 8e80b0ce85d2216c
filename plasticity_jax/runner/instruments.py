"""What instruments measure of the runs of a group, at the steps and epochs that their stages name."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.config.plan import Group
from plasticity_jax.diagnostics import PASSES
from plasticity_jax.diagnostics.subject import PART, Part, Remembering
from plasticity_jax.parallel import run_axis
from plasticity_jax.runner.context import Compute, Context
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.training.inputs import Images
from plasticity_jax.training.measuring import Measured

Tree = Any
FILLED = 32  # a probe is filled up to a multiple of so many images, and to one of `PART` above that


def measure(
    group: Group,
    context: Context,
    states: Tree,
    rows: Measured,
    memories: dict[str, Tree],
    due: np.ndarray,
    stop_if_asked: Callable[[], None],
    images: Images,
) -> tuple[dict[str, np.ndarray], dict[str, Tree]]:
    """(every number [R] by its name, memories by instrument); NaN for what is not due or cannot be measured.

    `images` are all of the training images, or those that are looked at, on the devices.

    Stops between instruments if asked; nothing is lost then.
    """
    values, after = dict[str, np.ndarray](), dict(memories)
    now = rows._replace(due=due)
    for name in context.programs.instruments:
        stop_if_asked()
        now = now._replace(memory=memories.get(name, ()))
        scalars, memory = context.programs.measure(name, group.stage, states, now, images)
        scalars, memory = run_axis.fetch((scalars, memory), len(due))
        values |= {key: np.asarray(value, np.float64) for key, value in scalars.items()}
        if name in memories:
            after[name] = memory
    return values, after


def is_measured(stage: spec.Stage) -> bool:
    """Whether instruments measure a stage at all."""
    return bool(stage.measure_steps or stage.measure_every)


def are_to_measure(group: Group, compute: Compute) -> bool:
    """Whether there are instruments, and a run of the group that they measure."""
    return bool(compute.programs.instruments) and any(is_measured(run.stage) for run in group.runs)


def passes(times: Timetable, compute: Compute) -> int:
    """What measuring a group costs in training images, no run ending early; a user's own instruments cost nothing."""
    each = sum(PASSES.get(name, 0.0) for name in compute.programs.instruments)
    images = [min(compute.study.measure_images, len(pool.indices)) for pool in times.pools]
    return round(sum(len(when) * count * each for when, count in zip(times.measured, images, strict=True)))


def due(times: Timetable, closed: Sequence[bool], epoch: float, done: np.ndarray) -> np.ndarray:
    """bool [R]: the runs that are measured at an event: where their stages say so, and at the end of one that is."""
    ends = done & np.array([run.stage.measure_every > 0 for run in times.group.runs])
    now = np.array([epoch in when for when in times.measured])
    return ~np.asarray(closed) & (ends | now)


def rows(times: Timetable, compute: Compute, tasks: Any, initial: Tree, parents: Tree) -> Measured:
    """The rows of a group, not due yet; `tasks`, `initial` and `parents` have leaves [R, ...]."""
    runs = times.group.runs
    return Measured(
        task=tasks,
        probe=run_axis.stack_on_host(list(probes(times, compute.timetables, compute.study.measure_images))),
        initial=initial,
        parent=parents,
        has_parent=np.asarray([run.parent is not None for run in runs]),
        due=np.zeros(len(runs), np.bool_),
    )


def memories(compute: Compute, times: Timetable, params: Tree) -> dict[str, Tree]:
    """What instruments remember at first: NaN.  Given the shapes of the parameters, leaves [R, ...]."""
    probe = next(probes(times, compute.timetables, compute.study.measure_images))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params), probe
    count = len(times.group.runs)
    initial = {}
    for name, instrument in compute.programs.instruments.items():
        if isinstance(instrument, Remembering):
            like = jax.eval_shape(instrument.start, *one)
            initial[name] = jax.tree.map(lambda leaf: np.full((count, *leaf.shape), np.nan, leaf.dtype), like)
    return initial


def probes(times: Timetable, timetables: Mapping[str, Timetable], most: int) -> Iterator[Part]:
    """The images that each run is measured on, at most so many, spread evenly over its pool; all of equal length.

    That is of the longest probe of the study's stages; what fills a part up weighs nothing.
    """
    measured = [each for each in timetables.values() if is_measured(each.group.stage)] or [times]
    longest = max(min(most, len(pool.indices)) for each in measured for pool in each.pools)
    multiple = 1 if longest <= FILLED else FILLED if longest <= PART else PART
    length = -(-longest // multiple) * multiple
    for row, pool in enumerate(times.pools):
        count = min(most, len(pool.indices))
        where = np.resize(np.arange(count) * len(pool.indices) // count, length)
        index = pool.indices[where].astype(np.int32)
        yield Part(
            index=index,
            label=pool.labels[where].astype(np.int32),
            weight=(np.arange(length) < count).astype(np.float32),
            old=np.isin(index, trained_before(times, row, timetables)),
        )


def trained_before(times: Timetable, row: int, timetables: Mapping[str, Timetable]) -> np.ndarray:
    """Which images (indices) a run was trained on in the stages before, or else another run of its seed and stage."""
    run = times.group.runs[row]
    alike = [
        other
        for times_of in timetables.values()
        for other in times_of.group.runs
        if (other.seed, other.stage.name) == (run.seed, run.stage.name)
    ]
    parents = {other.parent for other in ([run] if run.parent else alike) if other.parent}
    shown = [_shown(timetables, name, place) for name, place, _ in sorted(parents)]
    return functools.reduce(np.union1d, shown, np.zeros(0, np.int32))


def _shown(timetables: Mapping[str, Timetable], name: str, row: int) -> np.ndarray:
    """Which images a run was trained on up to its end."""
    times, shown = timetables[name], timetables[name].pools[row].indices
    parent = times.group.runs[row].parent
    return np.union1d(shown, _shown(timetables, parent[0], parent[1])) if parent else shown
