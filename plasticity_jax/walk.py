"""Walking one leg: all runs of a stage side by side, from where they start to the end of the last of them.

A leg is a unit on disk.  `DIR/PACK/STAGE` holds its table, rolling checkpoints while it runs, the networks at
epochs that later legs continue from, and at last `end`; a leg whose `end` is whole is never walked again.
"""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity_jax import measure, records, resets, runs, sampling, saved, stages, state, timetable, train, trees
from plasticity_jax.checkpoint import Checkpoints
from plasticity_jax.errors import Preempted
from plasticity_jax.lab import Lab
from plasticity_jax.legs import Leg, Run
from plasticity_jax.programs import Start
from plasticity_jax.tensorboard import Board

Tree = Any
CALL_SECONDS = 0.7  # the length of one call into a program: how late a signal may be noticed
CHECKPOINT_SHARE = 50  # a checkpoint that took t seconds is followed by 50 t without one


def walk(leg: Leg, lab: Lab) -> dict[str, Any]:
    """Train and evaluate every run of `leg`, or find that this was done before.

    Returns:
      {"runs": [{id, sha256, failed, steps}], ..}: what is known of each run at the end.

    Raises:
      Preempted: the process was asked to stop; the leg is saved and the next call goes on.
    """
    end = lab.checkpoints(leg.name, "end")
    like = _like(leg, lab)
    found = end.latest(_kept(leg, lab, like))
    if found and records.fits(_table(leg, lab), found[2]["mark"]):
        return found[2]
    times = lab.timetables[leg.name]
    rolling = lab.checkpoints(leg.name, "checkpoints", keep=2)
    states, at, table = _resume(leg, lab, rolling, like)
    board = Board(lab.directory / "tensorboard" / leg.name, records.read(table.path))
    rows = timetable.tasks(times, lab.slots)
    initial = jax.device_put(runs.stack_on_host([lab.programs.init(state.init_key(run.seed))[0] for run in leg.runs]))
    last_save = time.monotonic()
    pause = lab.study.checkpoint_seconds

    def save() -> None:
        nonlocal last_save, pause
        with lab.clock("checkpoint"):
            start = time.monotonic()
            at.count += 1
            rolling.save(at.count, states, {"next": at.event, "closed": at.closed, "mark": table.mark()})
            rolling.wait()
            last_save = time.monotonic()
            pause = max(lab.study.checkpoint_seconds, CHECKPOINT_SHARE * (last_save - start))
        lab.clock.save()

    def stop_if_asked() -> None:
        if lab.stopped():
            save()
            raise Preempted(f"stopped in stage {leg.name}; saved")

    speed = Speed()
    while at.event < len(times.events):
        epoch = times.events[at.event]
        targets = np.array([times.target(i, epoch) for i in range(len(leg.runs))], np.int32)
        while True:
            stop_if_asked()
            steps, done = (np.asarray(leaf) for leaf in jax.device_get((states.step, states.done)))
            lab.progress.update(lab.directory.name, times, steps, at.accuracy)
            if np.all(done | (steps >= targets)):
                break
            if time.monotonic() - last_save > pause:
                save()
            states = speed.advance(leg, lab, states, rows, targets)
        with lab.timed("evaluate"):
            values = measure.measure(leg, lab, states, initial, stop_if_asked)
        table_rows, closed = measure.rows(leg, times, at.closed, epoch, steps, done, values)
        at.accuracy = float(np.mean(values["test_accuracy"]))
        with lab.clock("records"):
            table.append(table_rows)
            board.append(table_rows)
        at.closed, at.event = closed, at.event + 1
        if epoch in leg.keep:
            _keep(lab.checkpoints(leg.name, "snapshots"), int(epoch), states, {}, lab, leg)
        if all(at.closed):
            break
    for epoch in leg.keep:
        if times.events.index(epoch) >= at.event:  # every run ended before it, so it is where they ended
            _keep(lab.checkpoints(leg.name, "snapshots"), epoch, states, {}, lab, leg)
    host = jax.device_get(states)
    meta = {
        "mark": table.mark(),
        "runs": [
            {
                "id": run.id,
                "sha256": trees.sha256(runs.take(host.params, i)),
                "failed": bool(host.failed[i])
                or not all(np.isfinite(leaf[i]).all() for leaf in jax.tree.leaves(host.params)),
                "steps": int(host.step[i]),
            }
            for i, run in enumerate(leg.runs)
        ],
    }
    rolling.close()
    _keep(end, 0, states, meta, lab, leg)
    shutil.rmtree(rolling.directory, ignore_errors=True)
    table.close()
    board.close()
    lab.clock.save()
    return meta


@dataclasses.dataclass
class Place:
    """Where a leg stands: the next event, the runs recorded to their end, checkpoints so far, the last accuracy."""

    event: int
    closed: list[bool]
    count: int
    accuracy: float


class Speed:
    """Chooses how many steps one call takes, so that a call is short however large the network."""

    def __init__(self) -> None:
        self.steps = 1

    def advance(self, leg: Leg, lab: Lab, states: Tree, rows: train.Task, targets: np.ndarray) -> Tree:
        """The states some steps on, none of them behind its target."""
        before = np.array(states.step)  # a copy: the buffer is about to be given away
        until = np.minimum(targets, before + self.steps)
        spent = lab.clock.seconds.get("train", 0.0)
        with lab.timed("train"):
            states = jax.block_until_ready(lab.programs.advance(leg.runs[0].stage, states, (rows, until), lab.images))
        spent = lab.clock.seconds["train"] - spent
        taken = max(1, int(np.max(np.asarray(states.step) - before)))
        self.steps = int(np.clip(taken * CALL_SECONDS / max(spent, 1e-3), 1, 4 * taken))
        return states


def _resume(leg: Leg, lab: Lab, rolling: Checkpoints, like: Tree) -> tuple[Tree, Place, records.Table]:
    """The newest checkpoint that is whole, or the start of the stage."""
    found = rolling.latest(like)
    if found:
        count, states, meta = found
        if records.fits(_table(leg, lab), meta["mark"]):
            place = Place(meta["next"], meta["closed"], count, float("nan"))
            return jax.device_put(states), place, records.Table(_table(leg, lab), meta["mark"])
        lab.progress.note(
            f"{_table(leg, lab)} does not hold the rows that its checkpoint counts on; stage {leg.name} starts again"
        )
        shutil.rmtree(rolling.directory)
    with lab.timed("begin"):
        states = _begin(leg, lab, like)
    return states, Place(0, [False] * len(leg.runs), 0, float("nan")), records.Table(_table(leg, lab), None)


def _table(leg: Leg, lab: Lab) -> Path:
    return lab.directory / leg.name / "metrics.jsonl"


def _like(leg: Leg, lab: Lab) -> state.TrainState:
    return saved.states_like(leg, lab.model, lab.programs.image_shape)


def _kept(leg: Leg, lab: Lab, states: Tree) -> dict[str, Tree]:
    return saved.kept(leg, [times.leg for times in lab.timetables.values()], states)


def _keep(where: Checkpoints, number: int, states: Tree, meta: dict, lab: Lab, leg: Leg) -> None:
    with lab.clock("checkpoint"):
        where.save(number, _kept(leg, lab, states), meta)
        where.wait()
        where.close()


def _begin(leg: Leg, lab: Lab, like: state.TrainState) -> state.TrainState:
    """The states at step 0: parents gathered row by row, then the resets."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    parents, starts = [], []
    for run in leg.runs:
        fresh = lab.programs.init(sampling.key(run.seed, "fresh", leg.name))
        parents.append(_parent(run, lab, one))
        starts.append(Start(*fresh, resets.factors(run.stage.reset, one)))
    return lab.programs.begin(leg.runs[0].stage, runs.stack_on_host(parents), runs.stack_on_host(starts))


def _parent(run: Run, lab: Lab, one: state.TrainState) -> tuple[Tree, Tree, Tree]:
    """(params, stats, opt) that a run continues from: the first weights of its seed, or what another leg kept."""
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), one.opt)
    if run.parent is None:
        return (*lab.programs.init(state.init_key(run.seed)), opt)
    name, row, epoch = run.parent
    origin = lab.timetables[name].leg
    where = lab.checkpoints(name, "end" if epoch == stages.END else "snapshots")
    kept, _ = where.restore(0 if epoch == stages.END else epoch, _kept(origin, lab, _like(origin, lab)))
    kept = runs.take(kept, row)
    # Moments that the reset forgets may be those of another optimiser.
    return kept["params"], kept["stats"], opt if run.stage.reset.optimiser == "all" else kept["opt"]
