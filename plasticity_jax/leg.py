"""Walking one leg: all runs of a stage side by side, from where they start to the end of the last of them.

A leg is a unit on disk.  `DIR/PACK/STAGE` holds its table, rolling checkpoints while it runs, the networks at
epochs that later legs continue from, and at last `end`; a leg whose `end` is whole is never walked again.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax import records, resets, runs, sampling, saved, stages, state, timetable, train, trees
from plasticity_jax.checkpoint import Checkpoints
from plasticity_jax.clock import Clock
from plasticity_jax.datasets import Dataset
from plasticity_jax.errors import Preempted
from plasticity_jax.programs import Programs, Start
from plasticity_jax.progress import Progress
from plasticity_jax.tensorboard import Board

Tree = Any
PROBE = 512  # test images that the diagnostics look at
CALL_SECONDS = 0.7  # the length of one call into a program: how late a signal may be noticed
CHECKPOINT_SHARE = 50  # a checkpoint that took t seconds is followed by 50 t without one


@dataclasses.dataclass(frozen=True, eq=False)
class Lab:
    """What all legs of a pack share."""

    directory: Path
    study: stages.Study
    model: nn.Module
    dataset: Dataset
    images: train.Images
    test_images: train.Images
    timetables: Mapping[str, timetable.Timetable]
    programs: Programs
    clock: Clock
    progress: Progress
    stopped: Callable[[], bool]

    @property
    def slots(self) -> int:
        """The length that every pool of the pack is padded to, so that legs can share programs."""
        return max(len(pool.indices) for times in self.timetables.values() for pool in times.pools)

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the time inside as `kind`, but for what compilation took of it."""
        compiled, start = self.programs.seconds, time.perf_counter()
        try:
            yield
        finally:
            compiling = self.programs.seconds - compiled
            self.clock.add("compile", compiling)
            self.clock.add(kind, time.perf_counter() - start - compiling)
            self.progress.pause(compiling)

    def checkpoints(self, leg: str, kind: str, keep: int | None = None) -> Checkpoints:
        return Checkpoints(self.directory / leg / kind, keep, self.progress.note)


def walk(leg: stages.Leg, lab: Lab) -> dict[str, Any]:
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
    initial = jax.device_put(_stack([lab.programs.init(state.init_key(run.seed))[0] for run in leg.runs]))
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
            lab.progress.update(lab.directory.name, times, steps, _mean(at.accuracy))
            if np.all(done | (steps >= targets)):
                break
            if time.monotonic() - last_save > pause:
                save()
            states = speed.advance(leg, lab, states, rows, targets)
        with lab.timed("evaluate"):
            values = _measure(leg, lab, states, initial, stop_if_asked)
        table_rows, closed = _rows(leg, times, at, epoch, steps, done, values)
        with lab.clock("records"):
            table.append(table_rows)
            board.append(table_rows)
        at.closed, at.event = closed, at.event + 1
        if epoch in leg.keep:
            _keep(lab.checkpoints(leg.name, "snapshots"), int(epoch), states, {}, lab, leg)
        if all(at.closed):
            break
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
    """Where a leg stands: the next event, which runs are recorded to their end, checkpoints so far, last accuracies."""

    event: int
    closed: list[bool]
    count: int
    accuracy: list[float]


class Speed:
    """Chooses how many steps one call takes, so that a call is short however large the network."""

    def __init__(self) -> None:
        self.steps = 1

    def advance(self, leg: stages.Leg, lab: Lab, states: Tree, rows: train.Task, targets: np.ndarray) -> Tree:
        """The states some steps on, none of them behind its target."""
        before = np.asarray(states.step)
        until = np.minimum(targets, before + self.steps)
        spent = lab.clock.seconds.get("train", 0.0)
        with lab.timed("train"):
            states = jax.block_until_ready(lab.programs.advance(leg.runs[0].stage, states, (rows, until), lab.images))
        spent = lab.clock.seconds["train"] - spent
        taken = max(1, int(np.max(np.asarray(states.step) - before)))
        self.steps = int(np.clip(taken * CALL_SECONDS / max(spent, 1e-3), 1, 4 * taken))
        return states


def _resume(leg: stages.Leg, lab: Lab, rolling: Checkpoints, like: Tree) -> tuple[Tree, Place, records.Table]:
    """The newest checkpoint that is whole, or the start of the stage."""
    found = rolling.latest(like)
    nan = [float("nan")] * len(leg.runs)
    if found:
        count, states, meta = found
        if records.fits(_table(leg, lab), meta["mark"]):
            place = Place(meta["next"], meta["closed"], count, nan)
            return jax.device_put(states), place, records.Table(_table(leg, lab), meta["mark"])
        lab.progress.note(
            f"{_table(leg, lab)} does not hold the rows that its checkpoint counts on; stage {leg.name} starts again"
        )
        shutil.rmtree(rolling.directory)
    with lab.timed("begin"):
        states = _begin(leg, lab, like)
    return states, Place(0, [False] * len(leg.runs), 0, nan), records.Table(_table(leg, lab), None)


def _table(leg: stages.Leg, lab: Lab) -> Path:
    return lab.directory / leg.name / "metrics.jsonl"


def _like(leg: stages.Leg, lab: Lab) -> state.TrainState:
    return saved.states_like(leg, lab.model, lab.programs.image_shape)


def _kept(leg: stages.Leg, lab: Lab, states: Tree) -> dict[str, Tree]:
    return saved.kept(leg, [times.leg for times in lab.timetables.values()], states)


def _keep(where: Checkpoints, number: int, states: Tree, meta: dict, lab: Lab, leg: stages.Leg) -> None:
    with lab.clock("checkpoint"):
        where.save(number, _kept(leg, lab, states), meta)
        where.wait()
        where.close()


def _begin(leg: stages.Leg, lab: Lab, like: state.TrainState) -> state.TrainState:
    """The states at step 0: parents gathered row by row, then the resets."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    parents, starts = [], []
    for run in leg.runs:
        fresh = lab.programs.init(sampling.key(run.seed, "fresh", leg.name))
        parents.append(_parent(run, lab, one))
        starts.append(Start(*fresh, resets.factors(run.stage.reset, one)))
    return lab.programs.begin(leg.runs[0].stage, _stack(parents), _stack(starts))


def _parent(run: stages.Run, lab: Lab, one: state.TrainState) -> tuple[Tree, Tree, Tree]:
    """(params, stats, opt) that a run continues from: the first weights of its seed, or what another leg kept."""
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), one.opt)
    if run.parent is None:
        return (*lab.programs.init(state.init_key(run.seed)), opt)
    name, row, epoch = run.parent
    origin = lab.timetables[name].leg
    where = lab.checkpoints(name, "end" if epoch == stages.END else "snapshots")
    kept, _ = where.restore(0 if epoch == stages.END else epoch, _kept(origin, lab, _like(origin, lab)))
    kept = runs.take(kept, row)
    return kept["params"], kept["stats"], kept.get("opt", opt)


def _stack(rows: Sequence[Tree]) -> Tree:
    """`runs.stack` on the host, where nothing is compiled for it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _measure(
    leg: stages.Leg, lab: Lab, states: Tree, initial: Tree, stop_if_asked: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Every metric [R] of the states, accuracies in percent.  Stops between batches if asked; nothing is lost then."""
    times, study = lab.timetables[leg.name], lab.study
    n_test = study.test_images or len(lab.dataset.test_labels)
    everything = timetable.plain_source(np.arange(n_test, dtype=np.int32), lab.dataset.test_labels)
    values = _evaluate(lab.programs.evaluate, "test", states, everything, lab.test_images, n_test, lab, stop_if_asked)
    own = {}
    if study.validation_images:
        own["validation"] = [timetable.plain_source(held, lab.dataset.train_labels) for held in times.held_out]
    if study.evaluate_train:
        pools = zip(times.pools, leg.runs, strict=True)
        own["train_eval"] = [timetable.source(pool, run.stage.data, lab.slots) for pool, run in pools]
    for name, sources in own.items():
        stacked = _stack(sources)
        longest = int(stacked.size.max())
        values |= _evaluate(lab.programs.evaluate_own, name, states, stacked, lab.images, longest, lab, stop_if_asked)
    running = np.asarray(states.last, np.float64)
    values |= {"train_loss": running[:, 0], "train_accuracy": running[:, 1]}
    probe = np.arange(min(PROBE, n_test), dtype=np.int32)
    if lab.programs.diagnostics:
        batch = {"index": probe, "label": lab.dataset.test_labels[probe]}
        found = jax.device_get(lab.programs.diagnose(states, initial, batch, lab.test_images))
        values |= {name: np.asarray(value, np.float64) for name, value in found.items()}
    return values


def _evaluate(
    program: Callable[..., train.Metrics],
    name: str,
    states: Tree,
    source: sampling.Source,
    images: train.Images,
    length: int,
    lab: Lab,
    stop_if_asked: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Loss and accuracy [R] as sums over all slots, divided once; batch by batch in a fixed order."""
    sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
    for first in range(0, length, lab.programs.eval_batch):
        stop_if_asked()
        batch = jax.device_get(program(states, source, first, images))
        sums = {key: sums[key] + np.asarray(batch[key], np.float64) for key in sums}
    return {f"{name}_loss": sums["loss"] / sums["count"], f"{name}_accuracy": 100.0 * sums["correct"] / sums["count"]}


def _rows(
    leg: stages.Leg,
    times: timetable.Timetable,
    at: Place,
    epoch: float,
    steps: np.ndarray,
    done: np.ndarray,
    values: Mapping[str, np.ndarray],
) -> tuple[list[records.Row], list[bool]]:
    """Table rows of this event, for the runs that it concerns; and which runs are recorded to their end now."""
    rows: list[records.Row] = []
    for i, run in enumerate(leg.runs):
        if at.closed[i] or not (done[i] or epoch in times.points[i]):
            continue
        at.accuracy[i] = float(values["test_accuracy"][i])
        common = {
            "run": run.id,
            "seed": run.seed,
            "branch": run.branch,
            "hparams": dict(run.hparams),
            "stage": leg.name,
        }
        at_step = {"epoch": float(steps[i] / times.epoch_steps[i]), "step": int(steps[i])}
        missing = {name for name in ("train_loss", "train_accuracy") if steps[i] < times.epoch_steps[i]}
        metrics: Sequence[str] = [name for name in values if name not in missing]
        rows += [{**common, **at_step, "metric": name, "value": float(values[name][i])} for name in metrics]
    return rows, [bool(was or now) for was, now in zip(at.closed, done, strict=True)]


def _mean(values: Sequence[float]) -> float:
    """The mean of what is not NaN, or NaN."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
