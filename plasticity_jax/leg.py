"""Walking one leg: all runs of a stage side by side, from where they start to the end of the last of them.

A leg is a unit on disk.  `DIR/PACK/STAGE` holds its table, rolling checkpoints while it runs, the networks at
epochs that later legs continue from, and at last `end`; a leg whose `end` is whole is never walked again.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import records, resets, runs, sampling, stages, state, timetable, train, trees
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
    saved = time.monotonic()
    pause = lab.study.checkpoint_seconds

    def save() -> None:
        nonlocal saved, pause
        with lab.clock("checkpoint"):
            start = time.monotonic()
            at.count += 1
            rolling.save(at.count, states, {"next": at.event, "closed": at.closed, "mark": table.mark()})
            rolling.wait()
            saved = time.monotonic()
            pause = max(lab.study.checkpoint_seconds, CHECKPOINT_SHARE * (saved - start))
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
            lab.progress.update(lab.directory.name, times, steps, float(np.nanmean(at.accuracy)))
            if np.all(done | (steps >= targets)):
                break
            if time.monotonic() - saved > pause:
                save()
            until = np.minimum(targets, steps + speed.steps)
            states = speed.measure(lambda s=states, u=until: _advance(leg, lab, s, rows, u), lab, steps)
        values = _measure(leg, lab, states, stop_if_asked)
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

    def measure(self, call: Callable[[], Tree], lab: Lab, before: np.ndarray) -> Tree:
        compiled = lab.programs.seconds
        start = time.perf_counter()
        states = jax.block_until_ready(call())
        compiling = lab.programs.seconds - compiled
        seconds = time.perf_counter() - start - compiling
        lab.clock.add("compile", compiling)
        lab.clock.add("train", seconds)
        taken = max(1, int(np.max(np.asarray(states.step) - before)))
        self.steps = int(np.clip(taken * CALL_SECONDS / max(seconds, 1e-3), 1, 4 * taken))
        return states


def _advance(leg: stages.Leg, lab: Lab, states: Tree, rows: train.Task, until: np.ndarray) -> Tree:
    return lab.programs.advance(leg.runs[0].stage, states, (rows, until), lab.images)


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
    with lab.clock("begin"):
        states = _begin(leg, lab, like)
    return states, Place(0, [False] * len(leg.runs), 0, nan), records.Table(_table(leg, lab), None)


def _table(leg: stages.Leg, lab: Lab) -> Path:
    return lab.directory / leg.name / "metrics.jsonl"


def _like(leg: stages.Leg, lab: Lab) -> state.TrainState:
    """Shapes of the states of a leg, leaves [R, ...]."""

    def one() -> state.TrainState:
        params, stats = state.init_network(lab.model, jax.random.key(0), lab.programs.image_shape)
        return state.create(params, stats, leg.runs[0].stage.optim)

    count = len(leg.runs)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), jax.eval_shape(one))


def _kept(leg: stages.Leg, lab: Lab, states: Tree) -> dict[str, Tree]:
    """What is kept of finished networks; the optimiser only if a later stage goes on with it."""
    children = [
        run.stage for t in lab.timetables.values() for run in t.leg.runs if run.parent and run.parent[0] == leg.name
    ]
    moments = any(stage.reset.optimiser != "all" for stage in children)
    return {"params": states.params, "stats": states.stats, **({"opt": states.opt} if moments else {})}


def _keep(where: Checkpoints, number: int, states: Tree, meta: dict, lab: Lab, leg: stages.Leg) -> None:
    with lab.clock("checkpoint"):
        where.save(number, _kept(leg, lab, states), meta)
        where.wait()
        where.close()


def _begin(leg: stages.Leg, lab: Lab, like: state.TrainState) -> state.TrainState:
    """The states at step 0: parents gathered row by row, then the resets."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    parents = [_parent(run, lab, one) for run in leg.runs]
    starts = [
        Start(
            init_key=state.init_key(run.seed),
            fresh_key=sampling.key(run.seed, "fresh", run.stage.name),
            from_init=np.bool_(run.parent is None),
            factors=resets.factors(run.stage.reset, one),
        )
        for run in leg.runs
    ]
    return lab.programs.begin(leg.runs[0].stage, runs.stack(parents), runs.stack(starts))


def _parent(run: stages.Run, lab: Lab, one: state.TrainState) -> tuple[Tree, Tree, Tree]:
    """(params, stats, opt) that a run continues from; zeros where it starts anew."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (one.params, one.stats, one.opt))
    if run.parent is None:
        return zeros
    name, row, epoch = run.parent
    parent_leg = lab.timetables[name].leg
    where = lab.checkpoints(name, "end" if epoch == stages.END else "snapshots")
    tree, _ = where.restore(0 if epoch == stages.END else epoch, _kept(parent_leg, lab, _like(parent_leg, lab)))
    return (
        *(runs.take(tree[part], row) for part in ("params", "stats")),
        runs.take(tree["opt"], row) if "opt" in tree else zeros[2],
    )


def _measure(leg: stages.Leg, lab: Lab, states: Tree, stop_if_asked: Callable[[], None]) -> dict[str, np.ndarray]:
    """Every metric [R] of the states, accuracies in percent.  Stops between batches if asked; nothing is lost then."""
    times, study = lab.timetables[leg.name], lab.study
    n_test = study.test_images or len(lab.dataset.test_labels)
    compiled, start = lab.programs.seconds, time.perf_counter()
    everything = timetable.plain_source(np.arange(n_test, dtype=np.int32), lab.dataset.test_labels)
    values = _evaluate(lab.programs.evaluate, "test", states, everything, lab.test_images, n_test, lab, stop_if_asked)
    own = {}
    if study.validation_images:
        own["validation"] = [timetable.plain_source(held, lab.dataset.train_labels) for held in times.held_out]
    if study.evaluate_train:
        pools = zip(times.pools, leg.runs, strict=True)
        own["train_eval"] = [timetable.source(pool, run.stage.data, lab.slots) for pool, run in pools]
    for name, sources in own.items():
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sources)
        longest = int(stacked.size.max())
        values |= _evaluate(lab.programs.evaluate_own, name, states, stacked, lab.images, longest, lab, stop_if_asked)
    running = np.asarray(states.last, np.float64)
    values |= {"train_loss": running[:, 0], "train_accuracy": running[:, 1]}
    probe = np.arange(min(PROBE, n_test), dtype=np.int32)
    keys = jnp.stack([state.init_key(run.seed) for run in leg.runs])
    if lab.programs.diagnostics:
        batch = {"index": probe, "label": lab.dataset.test_labels[probe]}
        found = jax.device_get(lab.programs.diagnose(states, keys, batch, lab.test_images))
        values |= {name: np.asarray(value, np.float64) for name, value in found.items()}
    compiling = lab.programs.seconds - compiled
    lab.clock.add("compile", compiling)
    lab.clock.add("evaluate", time.perf_counter() - start - compiling)
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
