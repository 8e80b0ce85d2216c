"""The schedule of a stage: the length of each run, and the epochs at which it is evaluated or kept.

Pure Python and numpy, independent of devices.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.config.plan import Group, Run
from plasticity_jax.data import batches, patches, subsets
from plasticity_jax.data import tasks as tasks_of
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import ConfigError, LabError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import run_axis
from plasticity_jax.training import hyper, resets
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.state import TrainState
from plasticity_jax.training.step import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Timetable:
    """The timetable of a group; lists have one entry per run.

    pools: training images.  held_out, tests: validation and test images.
    epoch_steps, steps: steps in an epoch and in the stage.
    points: epochs at which the run is evaluated.  measured: those at which instruments measure it too.
    events: all epochs at which the group stops to evaluate or keep.
    """

    group: Group
    dataset: Dataset
    pools: list[subsets.Pool]
    held_out: list[np.ndarray]
    tests: list[np.ndarray]
    epoch_steps: list[int]
    steps: list[int]
    points: list[frozenset[float]]
    measured: list[frozenset[float]]
    events: list[float]

    def target(self, run: int, epoch: float) -> int:
        """The step at which `run` has trained `epoch` epochs, at most its last step."""
        return min(round(epoch * self.epoch_steps[run]), self.steps[run])

    def images(self) -> int:
        """The number of training images of all runs together, if no run ends early."""
        return sum(n * run.stage.batch_size for n, run in zip(self.steps, self.group.runs, strict=True))


def draw_up(group: Group, study: spec.Study, dataset: Dataset) -> Timetable:
    """The timetable of `group` on `dataset`.

    Raises:
      ConfigError: more images asked for than there are.
    """
    labels, data = dataset.train_labels, [run.stage.data for run in group.runs]
    counts = (study.train_images, study.validation_images)
    spans = [dataset.span(each.member) for each in data]
    for first, last in {span.test for span in spans}:
        if study.test_images > last - first:
            raise ConfigError(f"config.test_images={study.test_images}: {dataset.name} has {last - first} test images")
    for patch in {each.patch for each in data}:
        if patch.share and patch.size > min(dataset.shape[:2]):
            raise ConfigError(f"data.patch.size={patch.size}: the images of {dataset.name} are smaller")
    drawn = list(zip(data, [run.seed for run in group.runs], spans, strict=True))
    pools = [subsets.pool(d, seed, labels, dataset.classes, *counts, span) for d, seed, span in drawn]
    held_out = [subsets.validation(d, seed, labels, span, study.validation_images) for d, seed, span in drawn]
    tests = [subsets.test_images(d, seed, dataset.test_labels, span, study.test_images) for d, seed, span in drawn]
    both = [lengths(run.stage, len(p.indices)) for p, run in zip(pools, group.runs, strict=True)]
    epoch_steps, steps = [n for n, _ in both], [total for _, total in both]
    lasting = list(zip(group.runs, epoch_steps, steps, strict=True))
    measured = [frozenset(_measured(run.stage, n, total)) for run, n, total in lasting]
    points = [
        frozenset(_points(run.stage, total / n, study.window)) | extra
        for (run, n, total), extra in zip(lasting, measured, strict=True)
    ]
    events = sorted(set().union(*points, map(float, group.keep)))
    return Timetable(group, dataset, pools, held_out, tests, epoch_steps, steps, points, measured, events)


def lengths(stage: spec.Stage, images: int) -> tuple[int, int]:
    """(steps per epoch, steps in the stage) of a run that trains on `size` images."""
    epoch = math.ceil(images / stage.batch_size)
    return epoch, stage.steps or max(1, round(stage.epochs * epoch))


def starts(milestones: Sequence[float], steps: int) -> np.ndarray:
    """int32 [K - 1]: the first step of `steps` at which each milestone is reached, as `schedules.multiplier` does.

    That is where the quotient of step and steps, in float32, is no less than the milestone.
    """
    share = np.asarray(milestones, np.float32).reshape(-1, 1)
    near = np.floor(share.astype(np.float64) * steps).astype(np.int32) + np.arange(-2, 3, dtype=np.int32)
    reached = near.astype(np.float32) / np.float32(steps) >= share
    return np.take_along_axis(near, np.argmax(reached, axis=1, keepdims=True), axis=1)[:, 0]


def _points(stage: spec.Stage, epochs: float, window: float) -> list[float]:
    """Epochs of evaluation: the start, every `eval_every`, every `eval_tail` inside the metric's window, the end."""
    tail = (1.0 - window) * epochs
    whole = range(1, math.ceil(epochs))
    sparse = [float(e) for e in whole if stage.eval_every and e % stage.eval_every == 0]
    dense = [float(e) for e in whole if stage.eval_every and stage.eval_tail and e > tail and e % stage.eval_tail == 0]
    return [0.0, *sparse, *dense, float(epochs)]


def _measured(stage: spec.Stage, epoch_steps: int, steps: int) -> list[float]:
    """Epochs, possibly fractional, at which instruments measure a run of `steps` steps."""
    first = [step / epoch_steps for step in stage.measure_steps if step <= steps]
    if not stage.measure_every:
        return first
    end = steps / epoch_steps
    return [*first, *(float(e) for e in range(stage.measure_every, math.ceil(end), stage.measure_every)), end]


def source(pool: subsets.Pool, data: spec.Data, length: int, classes: Any = (), patched: Any = ()) -> batches.Source:
    """The pool as a row of the run axis, padded to `length` slots."""
    pad = (0, length - len(pool.indices))
    if patched:
        patched = patched._replace(flags=np.pad(patched.flags, pad))
    return batches.Source(
        indices=np.pad(pool.indices, pad).astype(np.int32),
        labels=np.pad(pool.labels, pad).astype(np.int32),
        size=np.int32(len(pool.indices)),
        base=np.int32(pool.base),
        gamma=np.float32(data.gamma if data.recipe == "blend" else 0.0),
        replacement=np.bool_(data.replacement or data.recipe == "blend"),
        shuffle=np.bool_(data.shuffle),
        classes=classes,
        patches=patched,
    )


def plain_source(
    indices: np.ndarray, labels: np.ndarray, length: int = 0, classes: Any = (), patched: Any = ()
) -> batches.Source:
    """A source for evaluation: the images at `indices` in this order, padded to `length` slots."""
    none = spec.Patch(0.0, 1, 0.0, 0.0, 1, 0.0, 0.0), spec.Tasks("none", 1), "none"
    data = spec.Data(0, (), "random", 1.0, 1, 1, 1.0, 0.0, False, False, 0.0, *none)
    pool = subsets.Pool(indices, labels[indices], len(indices))
    return source(pool, data, max(length, len(indices)), classes, patched)


def told_apart(run: Run, dataset: Dataset) -> Any:
    """The classes of a run as a bool [K]; () for all classes."""
    if not run.stage.restricted:
        return ()
    chosen = subsets.told_apart(run.stage.data, run.seed, dataset.span(run.stage.data.member))
    return np.isin(np.arange(dataset.classes), chosen)


def patched(run: Run, dataset: Dataset, split: str, indices: np.ndarray) -> Any:
    """The patches on the images at `indices` of a split (`train` or `test`); () for a run without any."""
    patch, labels = run.stage.data.patch, getattr(dataset, f"{split}_labels")
    if not patch.share:
        return ()
    flags = patches.carried(patch, run.seed, len(labels), split)[indices]
    return patches.patches(patch, run.seed, dataset.classes, dataset.train_images.shape[-1], flags, only=False)


def training_source(times: Timetable, row: int, length: int) -> batches.Source:
    """The training source of a run, padded to `length` slots."""
    run, pool, dataset = times.group.runs[row], times.pools[row], times.dataset
    patches = patched(run, dataset, "train", pool.indices)
    plain = source(pool, run.stage.data, length, told_apart(run, dataset), patches)
    return plain._replace(tasks=stream(times, row))


def stream(times: Timetable, row: int, trained: bool = True) -> Any:
    """The tasks of a run for its training images, or for other images; () for a single task."""
    run, dataset = times.group.runs[row], times.dataset
    told = told_apart(run, dataset)
    every = np.ones(dataset.classes, np.bool_)
    return tasks_of.tasks(
        run.stage.data.tasks, run.seed, times.epoch_steps[row], every if isinstance(told, tuple) else told, trained
    )


def digests(times: Timetable) -> dict[str, str]:
    """A hash (hex) for each run of everything drawn by NumPy: its images and labels.

    It covers the pool with training labels including noise, validation and test images, the classes, and which images
    have a patch.
    """
    by_run = {}
    for row, (run, pool) in enumerate(zip(times.group.runs, times.pools, strict=True)):
        patch, dataset = run.stage.data.patch, times.dataset
        labels = (dataset.train_labels, dataset.test_labels)
        flags = [
            patches.carried(patch, run.seed, len(of), name) for name, of in zip(("train", "test"), labels, strict=True)
        ]
        images = {"indices": pool.indices, "labels": pool.labels, "base": np.int32(pool.base)}
        images |= {"held_out": times.held_out[row], "tests": times.tests[row], "classes": told_apart(run, dataset)}
        by_run[run.id] = parameters.sha256(images | ({"patched": flags} if patch.share else {}))
    return by_run


def check_digests(times: Timetable, meta: Mapping[str, Any], directory: Path) -> None:
    """Raises an error if a saved group, with its digests as `pools` in `meta`, would now draw other images.

    Checkpoints of earlier versions, without digests, are accepted.

    Raises:
      LabError: the digest of a run differs.
    """
    before, now = meta.get("pools"), digests(times)
    if not isinstance(before, dict):
        return
    other = [run for run, digest in now.items() if before.get(run, digest) != digest]
    if other:
        raise LabError(
            f"stage {times.group.name} in {directory} was trained on other images or labels than are drawn now "
            f"({other[0]}; {len(other)} of {len(now)} runs): the random stream of NumPy {np.__version__} differs; "
            "use the version of NumPy in environment.json, or another workdir"
        )


def tasks(timetable: Timetable, length: int, like: TrainState | None = None) -> Task:
    """The rows of a group, stacked: leaves [R, ...], pools padded to `length`.

    `like` has the structure of its states; only a stage with a stream of tasks needs it.
    """
    rows: Sequence[Task] = [
        Task(
            key=np.asarray(jax.random.key_data(batches.key(run.seed, "stage", run.stage.name))),
            source=training_source(timetable, row, length),
            hyper=hyper.of_stage(run.stage),
            steps=np.int32(timetable.steps[row]),
            epoch_steps=np.int32(timetable.epoch_steps[row]),
            until_accuracy=np.float32(run.stage.until_accuracy),
            ema=np.float32(run.stage.ema),
            watch=hyper.watch(run.stage.optim.detector) if run.stage.optim.schedule == "autodecay" else (),
            starts=starts(run.stage.optim.milestones, timetable.steps[row]),
            remedies=apply.rows(run.stage),
            smoothing=np.float32(run.stage.label_smoothing) if run.stage.label_smoothing else (),
            noise=np.float32(run.stage.activation_noise) if run.stage.activation_noise else (),
            reset=resets.factors(run.stage.reset, like) if run.stage.data.tasks.change != "none" and like else (),
        )
        for row, run in enumerate(timetable.group.runs)
    ]
    stacked = run_axis.stack_on_host(rows)
    return stacked._replace(key=jax.random.wrap_key_data(stacked.key))
