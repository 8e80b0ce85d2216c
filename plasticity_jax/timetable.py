"""When things happen in a leg: how long each run is, and the epochs at which it is evaluated or kept.

Pure Python and numpy; nothing here knows of devices.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from plasticity_jax import optim, pools, runs, sampling, stages
from plasticity_jax.datasets import Dataset
from plasticity_jax.errors import ConfigError
from plasticity_jax.legs import Leg
from plasticity_jax.train import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Timetable:
    """The timetable of a leg; lists have one entry per run.

    pools: training images.  held_out: validation images.  epoch_steps, steps: steps in an epoch and in the stage.
    points: epochs at which the run is evaluated.  events: all epochs at which the leg stops to evaluate or keep.
    """

    leg: Leg
    pools: list[pools.Pool]
    held_out: list[np.ndarray]
    epoch_steps: list[int]
    steps: list[int]
    points: list[frozenset[float]]
    events: list[float]

    def target(self, run: int, epoch: float) -> int:
        """The step at which `run` has trained `epoch` epochs, or its last one."""
        return min(round(epoch * self.epoch_steps[run]), self.steps[run])

    def images(self) -> int:
        """Training images that the leg will show, all runs together, if no run ends early."""
        return sum(n * run.stage.batch_size for n, run in zip(self.steps, self.leg.runs, strict=True))


def draw_up(leg: Leg, study: stages.Study, dataset: Dataset) -> Timetable:
    """The timetable of `leg` on `dataset`.

    Raises:
      ConfigError: more images asked for than there are.
    """
    labels = dataset.train_labels
    counts = (study.train_images, study.validation_images)
    found = [pools.pool(run.stage.data, run.seed, labels, dataset.classes, *counts) for run in leg.runs]
    if study.test_images > len(dataset.test_labels):
        raise ConfigError(
            f"config.test_images={study.test_images}: {dataset.name} has {len(dataset.test_labels)} test images"
        )
    both = [lengths(run.stage, len(p.indices)) for p, run in zip(found, leg.runs, strict=True)]
    epoch_steps, steps = [n for n, _ in both], [total for _, total in both]
    points = [
        frozenset(_points(run.stage, total / n, study.window))
        for run, n, total in zip(leg.runs, epoch_steps, steps, strict=True)
    ]
    events = sorted(set().union(*points, map(float, leg.keep)))
    held_out = [pools.held_out(run.seed, len(labels), study.validation_images) for run in leg.runs]
    return Timetable(leg, found, held_out, epoch_steps, steps, points, events)


def lengths(stage: stages.Stage, images: int) -> tuple[int, int]:
    """Steps in an epoch, and steps in the whole stage, of a run that trains on so many images."""
    epoch = math.ceil(images / stage.batch_size)
    return epoch, stage.steps or max(1, round(stage.epochs * epoch))


def _points(stage: stages.Stage, epochs: float, window: float) -> list[float]:
    """Epochs of evaluation: the start, every `eval_every`, every `eval_tail` inside the metric's window, the end."""
    tail = (1.0 - window) * epochs
    whole = range(1, math.ceil(epochs))
    sparse = [float(e) for e in whole if stage.eval_every and e % stage.eval_every == 0]
    dense = [float(e) for e in whole if stage.eval_every and stage.eval_tail and e > tail and e % stage.eval_tail == 0]
    return [0.0, *sparse, *dense, float(epochs)]


def source(pool: pools.Pool, data: stages.Data, length: int) -> sampling.Source:
    """The pool as a row of the run axis, padded to `length` slots."""
    pad = (0, length - len(pool.indices))
    return sampling.Source(
        indices=np.pad(pool.indices, pad).astype(np.int32),
        labels=np.pad(pool.labels, pad).astype(np.int32),
        size=np.int32(len(pool.indices)),
        base=np.int32(pool.base),
        gamma=np.float32(data.gamma if data.recipe == "blend" else 0.0),
        replacement=np.bool_(data.replacement or data.recipe == "blend"),
    )


def plain_source(indices: np.ndarray, labels: np.ndarray) -> sampling.Source:
    """A source that is only evaluated on: the images at `indices` in this order."""
    data = stages.Data("random", 1.0, 1, 1, 1.0, 0.0, False, 0.0)
    return source(pools.Pool(indices, labels[indices], len(indices)), data, len(indices))


def tasks(timetable: Timetable, length: int) -> Task:
    """The rows of a leg, stacked: leaves [R, ...], pools padded to `length`."""
    rows: Sequence[Task] = [
        Task(
            key=np.asarray(jax.random.key_data(sampling.key(run.seed, "stage", run.stage.name))),
            source=source(pool, run.stage.data, length),
            hyper=optim.hyper(run.stage.optim),
            steps=np.int32(steps),
            epoch_steps=np.int32(epoch_steps),
            until_accuracy=np.float32(run.stage.until_accuracy),
        )
        for run, pool, steps, epoch_steps in zip(
            timetable.leg.runs, timetable.pools, timetable.steps, timetable.epoch_steps, strict=True
        )
    ]
    stacked = runs.stack_on_host(rows)
    return stacked._replace(key=jax.random.wrap_key_data(stacked.key))
