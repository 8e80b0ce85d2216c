"""Trains and evaluates one group of runs side by side, from their initial states until the last of them ends.

Each group has a directory, `DIR/PACK/STAGE` if it is the only one of its stage.  It holds the metrics table, rolling
checkpoints during training, the networks at epochs from which later groups continue, and finally `end`.  A group with
an undamaged `end` is not trained again.
"""

import contextlib
import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity_jax.config.plan import Group
from plasticity_jax.errors import CheckpointError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import multihost, run_axis
from plasticity_jax.runner import evaluation, instruments, schedule, start, windows
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.dispatch import Pace
from plasticity_jax.runner.saver import Place, Saver, is_place, saved_tree
from plasticity_jax.storage import metrics, wandb
from plasticity_jax.storage.tensorboard import Board
from plasticity_jax.storage.wandb import Runs
from plasticity_jax.training import state

Tree = Any


def walk(group: Group, context: Context) -> dict[str, Any]:
    """Trains and evaluates every run of `group`, unless this was done before.

    Returns:
      {"runs": [{id, sha256, failed, steps}], ..}: the outcome of each run.

    Raises:
      Preempted: the process was asked to stop; the group is saved, and the next call continues it.
    """
    done_before = multihost.once(lambda: _done_before(group, context))
    if done_before:
        return done_before
    states, at, saver = _resume(group, context)
    context.left.clear()
    with _boards(group, context) as boards:
        return _train(group, context, states, at, saver, boards)


def _train(
    group: Group, context: Context, states: state.TrainState, at: Place, saver: Saver, boards: Sequence[Board | Runs]
) -> dict[str, Any]:
    """Trains and evaluates the runs of a group from a saved place on; returns the value of `walk`."""
    times, count = context.timetables[group.name], len(group.runs)
    pools = {"pools": schedule.digests(times)}
    tasks, strategy = schedule.tasks(times, context.slots, context.states_like(group)), context.programs.strategy
    pace, evaluator = Pace(group, context, tasks, saver.lineup), evaluation.Evaluator(group, context, saver.lineup)
    looks = _looks(group, context)
    sight = windows.measuring(context, times) if looks else None
    while at.event < len(times.events) and not all(at.closed):
        fewer = saver.lineup if looks else saver.lineup.after(at.closed, strategy)
        if fewer is not saver.lineup:
            saver.lineup, states = fewer.moved(saver.lineup, states, strategy)
            pace = Pace(group, context, tasks, saver.lineup)
            evaluator = evaluation.Evaluator(group, context, saver.lineup)
        epoch = times.events[at.event]
        measured = instruments.passes(times, context, epoch)
        targets = np.array([times.target(i, epoch) for i in range(count)], np.int32)
        pace.start(states)
        while True:
            saver.stop_if_asked(states, at)
            context.progress.update(context.directory.name, times, pace.steps, at.accuracy, measured)
            if pace.arrived(targets):
                break
            saver.save_if_due(states, at)
            states = pace.advance(states, targets)
        due, values = evaluation.due(times, at.closed, epoch, pace.done), {}
        if due.any():
            with context.timed("evaluate"):
                values = evaluator.measure(states, due, functools.partial(saver.stop_if_asked, states, at))
        dear: dict[str, np.ndarray] = {}
        memories, looked_at = at.memories, instruments.due(times, at.closed, epoch, pace.done)
        if looks and sight and looked_at.any():
            saver.save_if_due(states, at)
            stop = functools.partial(saver.stop_if_asked, states, at)
            with context.timed("measure"):
                images = sight.filled(pace.steps)
                dear, memories = instruments.measure(group, context, states, looks, memories, looked_at, stop, images)
        rows, closed = evaluation.rows(group, times, at.closed, epoch, pace.steps, pace.done, values, dear)
        with context.clock("records"):
            saver.table.append(rows)
            for board in boards:
                board.append(rows)
        if epoch in group.keep:
            kept = saver.lineup.fetch(functools.partial(context.kept, group), states)
            _keep(group, context, "snapshots", int(epoch), kept, pools)
        at = Place(at.event + 1, closed, _mean(values["test_accuracy"]) if values else at.accuracy, memories)
    host = saver.lineup.fetch(
        lambda states: {**context.kept(group, states), "step": states.step, "failed": states.failed}, states
    )
    steps, failed = host.pop("step"), host.pop("failed")
    for epoch in group.keep:
        if times.events.index(epoch) >= at.event:  # all runs ended earlier: keep their final networks
            _keep(group, context, "snapshots", epoch, host, pools)
    outcome = {**pools, "mark": saver.table.mark(), "runs": _outcomes(group, host["params"], steps, failed)}
    _keep(group, context, "end", 0, host, outcome)
    if not saver.lineup.ended:
        start.leave(group, context, states)
    saver.close()
    return outcome


def _done_before(group: Group, context: Context) -> dict[str, Any] | None:
    """The value of `walk` for a group that has ended; None if its table or a saved network is missing or damaged."""
    like = context.kept(group, context.states_like(group))
    end = context.checkpoints(group.name, "end").latest(like, functools.partial(is_outcome, group))
    if not end:
        return None
    schedule.check_digests(context.timetables[group.name], end[2], context.directory.parent)
    if not _holds(group, context, group.keep):
        return None
    if not metrics.fits(_table(group, context), end[2]["mark"]):
        context.progress.note(f"{_table(group, context)} lost or changed rows; stage {group.name} starts again")
        return None
    metrics.Table(_table(group, context), end[2]["mark"]).close()  # truncates rows written after the end
    return end[2]


def _holds(group: Group, context: Context, epochs: Iterable[int]) -> bool:
    """Whether the networks of these epochs, from which later groups continue, are undamaged; else prints a note."""
    like, snapshots = context.kept(group, context.states_like(group)), context.checkpoints(group.name, "snapshots")
    try:
        for epoch in epochs:
            snapshots.restore(epoch, like)
    except CheckpointError as error:
        context.progress.note(f"{error}; stage {group.name} starts again")
        return False
    return True


def _resume(group: Group, context: Context) -> tuple[state.TrainState, Place, Saver]:
    """Restores the newest undamaged checkpoint whose rows are in the table, or begins the stage."""
    rolling, path = context.checkpoints(group.name, "checkpoints", keep=2), _table(group, context)
    memories = _memories(group, context)
    saved = rolling.latest(saved_tree(context.states_like(group), memories), functools.partial(is_place, group))
    mark = saved[2]["mark"] if saved else None
    if mark and not multihost.once(lambda: metrics.fits(path, mark)):
        context.progress.note(f"{path} lacks rows that its checkpoint depends on; stage {group.name} starts again")
        multihost.once(lambda: shutil.rmtree(rolling.directory))
        saved = None
    events = context.timetables[group.name].events
    kept = [epoch for epoch in group.keep if epoch in events[: saved[2]["next"]]] if saved else []
    if not multihost.once(lambda: _holds(group, context, kept)):
        multihost.once(lambda: shutil.rmtree(rolling.directory))
        saved = None
    if saved:
        count, tree, meta = saved
        states, memories = tree if memories else (tree, memories)
        schedule.check_digests(context.timetables[group.name], meta, context.directory.parent)
        place = Place(meta["next"], meta["closed"], float("nan"), memories)
        return (
            context.programs.place(states),
            place,
            Saver(context, rolling, count, path, meta["mark"], len(group.runs)),
        )
    with context.timed("begin"):
        states = start.begin(group, context)
    place = Place(0, [False] * len(group.runs), float("nan"), memories)
    return states, place, Saver(context, rolling, 0, path, None, len(group.runs))


def _memories(group: Group, context: Context) -> dict[str, Tree]:
    """The memory of the instruments at the start of a group; empty if they do not measure it."""
    if not instruments.are_to_measure(group, context):
        return {}
    return instruments.memories(context, context.timetables[group.name], context.states_like(group).params)


def _looks(group: Group, context: Context) -> Tree:
    """The arguments with which instruments measure the runs of a group; None if there is nothing to measure."""
    if not instruments.are_to_measure(group, context):
        return None
    times, like = context.timetables[group.name], context.states_like(group)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    restore = start.restorer(context)
    parents = [start.parent(run, context, one, restore)[0] for run in group.runs]
    initial = [context.programs.init(state.init_key(run.seed))[0] for run in group.runs]
    tasks = schedule.tasks(times, context.slots, like)
    return instruments.rows(times, context, tasks, *map(run_axis.stack_on_host, (initial, parents)))


def is_outcome(group: Group, meta: Any) -> bool:
    """Whether the metadata of an `end` has the form of a value of `walk`."""
    runs = meta.get("runs") if isinstance(meta, dict) else None
    return (
        isinstance(runs, list)
        and [isinstance(run, dict) and run.get("id") for run in runs] == [run.id for run in group.runs]
        and all(isinstance(run.get("sha256"), str) and isinstance(run.get("failed"), bool) for run in runs)
        and all(metrics.is_count(run.get("steps")) for run in runs)
        and metrics.is_mark(meta.get("mark"))
    )


def _outcomes(group: Group, params: Tree, steps: np.ndarray, failed: np.ndarray) -> list[dict[str, Any]]:
    """The outcome of each run: id, hash of the parameters, whether it failed, number of steps."""
    finite = [all(np.isfinite(leaf[i]).all() for leaf in jax.tree.leaves(params)) for i in range(len(group.runs))]
    return [
        {
            "id": run.id,
            "sha256": parameters.sha256(run_axis.take(params, i)),
            "failed": bool(failed[i]) or not finite[i],
            "steps": int(steps[i]),
        }
        for i, run in enumerate(group.runs)
    ]


def _mean(values: np.ndarray) -> float:
    """The mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if len(finite) else float("nan")


@contextlib.contextmanager
def _boards(group: Group, context: Context) -> Iterator[list[Board | Runs]]:
    """TensorBoard and W&B, to which the first process also sends the rows; closed on exit, also after an error."""
    directory, pack = context.directory.parent, context.directory.name
    with contextlib.ExitStack() as stack:
        boards: list[Board | Runs] = []
        if multihost.first():
            rows = metrics.read(_table(group, context))
            boards += [Board(directory / "tensorboard", pack, group.name, rows)]
            boards += [Runs(directory, pack, rows)] if wandb.project() else []
        for board in boards:
            stack.callback(board.close)
        yield boards


def _table(group: Group, context: Context) -> Path:
    return context.directory / group.name / "metrics.jsonl"


def _keep(group: Group, context: Context, kind: str, number: int, host: dict[str, Tree], meta: dict[str, Any]) -> None:
    """Saves networks of a group permanently."""
    where = context.checkpoints(group.name, kind)
    with context.clock("checkpoint"):
        where.save(number, host, meta)
        where.close()
