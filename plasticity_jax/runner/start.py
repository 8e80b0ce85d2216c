"""The initial states of the runs of a group: the networks that they continue from, after resets."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.config.plan import Group, Run
from plasticity_jax.data import batches
from plasticity_jax.parallel import multihost, run_axis
from plasticity_jax.parallel.of_one import Parent, Start
from plasticity_jax.runner import schedule, windows
from plasticity_jax.runner.context import Context
from plasticity_jax.training import optimizers, resets, state
from plasticity_jax.training.remedies import apply

Tree = Any
Restore = Callable[[str, int], dict[str, Tree]]


def begin(group: Group, context: Context) -> state.TrainState:
    """The states at step 0.  Networks that the last group left on the devices are used from there."""
    like, stage = context.states_like(group), group.stage
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    left, held = dict(context.left), [_is_held(run, context.left, one) for run in group.runs]
    context.left.clear()
    restore = restorer(context)
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (one.params, one.stats, one.opt))
    parents = [
        nothing if here else parent(run, context, one, restore) for run, here in zip(group.runs, held, strict=True)
    ]
    rows = zip(_starts(group, context, one), parents, [np.bool_(not here) for here in held], strict=True)
    images = None
    if apply.acts_at_start(stage):
        images = windows.beginning(context, context.timetables[group.name]).filled()
    return context.programs.begin(stage, _states(group, context, like, left, held), list(rows), images)


def leave(group: Group, context: Context, states: state.TrainState) -> None:
    """Leaves networks on the devices for the next group; in one process only, and not with `loop`."""
    ends = any(
        run.parent and run.parent[::2] == (group.name, spec.END)
        for times in context.timetables.values()
        for run in times.group.runs
    )
    if ends and multihost.alone() and context.programs.strategy != "loop":
        context.left[group.name] = context.kept(group, states)


def restorer(context: Context) -> Restore:
    """Reads the saved networks of a group at an epoch, leaves [R, ...], once."""
    return functools.cache(functools.partial(_restore, context))  # many runs may have one parent


def parent(run: Run, context: Context, one: state.TrainState, restore: Restore) -> Parent:
    """(params, stats, opt) that a run continues from: the initial weights of its seed, or a saved network."""
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), one.opt)
    if run.parent is None:
        return (*context.programs.init(state.init_key(run.seed)), opt)
    name, row, epoch = run.parent
    kept = run_axis.take(restore(name, epoch), row)
    # Moments that the reset sets to zero may belong to another optimiser.
    moments = opt if run.stage.reset.optimiser == "all" else optimizers.counted_like(kept["opt"], opt)
    return kept["params"], kept["stats"], moments


def _restore(context: Context, name: str, epoch: int) -> dict[str, Tree]:
    group = context.timetables[name].group
    where = context.checkpoints(name, "end" if epoch == spec.END else "snapshots")
    tree, meta = where.restore(0 if epoch == spec.END else epoch, context.kept(group, context.states_like(group)))
    schedule.check_digests(context.timetables[name], meta, context.directory.parent)
    return tree


def _starts(group: Group, context: Context, one: state.TrainState) -> list[Start]:
    """The `Start` of each run."""
    starts = []
    for run in group.runs:
        fresh = context.programs.init(batches.key(run.seed, "fresh", run.stage.name))
        initial = context.programs.init(state.init_key(run.seed))[0] if run.stage.remedies else ()
        starts.append(Start(*fresh, resets.factors(run.stage.reset, one), initial))
    if not group.stage.remedies:
        return starts
    tasks = schedule.tasks(context.timetables[group.name], context.slots)
    tasks = tasks._replace(key=np.asarray(jax.random.key_data(tasks.key)))
    return [start._replace(task=run_axis.take(tasks, i)) for i, start in enumerate(starts)]


def _is_held(run: Run, left: Mapping[str, Tree], one: state.TrainState) -> bool:
    """Whether the parent of a run is among the networks left on the devices, with the moments that it needs."""
    if run.parent is None or run.parent[2] != spec.END or run.parent[0] not in left:
        return False
    return run.stage.reset.optimiser == "all" or _fits(left[run.parent[0]], one)


def _fits(left: Mapping[str, Tree], one: state.TrainState) -> bool:
    """Whether moments were left, and are those of this optimiser: a count may be of each weight, or of all."""
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape[1:], left.get("opt")),
        jax.tree.map(lambda leaf: leaf.shape, one.opt),
    ]
    return shapes[0] == shapes[1]


def _states(
    group: Group, context: Context, like: state.TrainState, left: dict[str, dict[str, Tree]], held: list[bool]
) -> Tree:
    """Empty states, except for the networks of the runs that are `held` among those left on the devices."""
    programs = context.programs
    if programs.strategy == "loop":
        return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
    moved: dict[str, Tree] = {}
    if any(held):
        ((_, networks),) = left.items()
        index = np.array(
            [run.parent[1] if here and run.parent else 0 for run, here in zip(group.runs, held, strict=True)]
        )
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
        names = ("params", "stats", "opt") if _fits(networks, one) else ("params", "stats")
        moved = run_axis.moved({name: networks[name] for name in names}, index, programs.strategy)
    blank = {name: getattr(like, name) for name in like.__dataclass_fields__ if name not in moved}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blank)
    return state.TrainState(**programs.place(zeros), **moved)
