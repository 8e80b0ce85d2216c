"""Applies instruments to the runs of a group, at the steps and epochs given by their stages."""

import functools
import math
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
FILLED = 32  # a probe is padded to a multiple of this many images, or above it to a multiple of `PART`


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
    """(scalars [R] by name, memories by instrument); NaN for runs that are not due or cannot be measured.

    `images` are all training images, or those needed, on the devices.

    May stop between instruments if a signal was received; nothing is lost then.
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
    """Whether instruments measure this stage at any time."""
    return bool(stage.measure_steps or stage.measure_every)


def are_to_measure(group: Group, compute: Compute) -> bool:
    """Whether the study has instruments, and a run of the group is measured."""
    return bool(compute.programs.instruments) and any(is_measured(run.stage) for run in group.runs)


def passes(times: Timetable, compute: Compute, before: float = math.inf) -> int:
    """The cost of measuring a group before an epoch, in training images, if no run ends early; custom ones cost 0."""
    cost = sum(PASSES.get(name, 0.0) for name in compute.programs.instruments)
    images = [min(compute.study.measure_images, len(pool.indices)) for pool in times.pools]
    done = [sum(epoch < before for epoch in when) for when in times.measured]
    return round(sum(when * count * cost for when, count in zip(done, images, strict=True)))


def due(times: Timetable, closed: Sequence[bool], epoch: float, done: np.ndarray) -> np.ndarray:
    """bool [R]: the runs to measure at an event: at the times given by their stages, and at their end."""
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
    """The initial memories of instruments: NaN.  `params` are the shapes of the parameters, leaves [R, ...]."""
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
    """The images on which each run is measured, at most `most`, spread evenly over its pool.

    All probes are padded, with weight 0, to the length of the longest one of the study's stages.
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
    """Indices of images used in earlier stages of a run, or if it has none, of other runs of its seed and stage."""
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
    """Indices of the images that a run was trained on up to its end."""
    times, shown = timetables[name], timetables[name].pools[row].indices
    parent = times.group.runs[row].parent
    return np.union1d(shown, _shown(timetables, parent[0], parent[1])) if parent else shown
