"""The image sets on which the runs of a stage are evaluated: test, validation and training images, patches.

Names of metrics begin with the name of the set: `test_accuracy` and `test_loss`, `validation_accuracy`, ..
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.data import batches
from plasticity_jax.parallel import run_axis
from plasticity_jax.runner import schedule
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.training.inputs import Probe

PROBE = 512  # images in each probe of the diagnostics
PATCHES = 1000  # images with only a patch, as in Li, Wei & Ma 2019


class Scored(NamedTuple):
    """Images that the runs of a group are evaluated on.

    source: leaves [R, ...] if `own`, else without a run axis, common to all runs.
    split: `train` or `test`, from which the images come.  length: of the longest source.
    """

    source: batches.Source
    split: str
    own: bool
    length: int


@functools.lru_cache(maxsize=4)
def scored_on(times: Timetable, study: spec.Study, slots: int) -> dict[str, Scored]:
    """The image sets for the runs of a group by name, the test set first.  Pools are padded to `slots`."""
    data, runs, rows = times.dataset, times.group.runs, range(len(times.group.runs))
    moved = times.group.stage.data.tasks.change == "pixels"
    by_run, sets = times.group.stage.restricted or moved, {}
    if by_run:
        sets["test"] = _own("test", _by_run(times, times.tests, data.test_labels))
    else:
        sets["test"] = _shared(data.test_labels, 0, len(times.tests[0]))
    for name, (first, last) in data.probes.items():
        last = min(last, first + (study.test_images or last))
        indices = [np.arange(first, last, dtype=np.int32)] * len(runs)
        shared = _shared(data.test_labels, first, last)
        sets[name] = _own("test", _by_run(times, indices, data.test_labels)) if moved else shared
    if study.validation_images:
        sets["validation"] = _own("train", _by_run(times, times.held_out, data.train_labels))
    if study.train_eval_images:
        sources = [schedule.training_source(times, row, slots)._replace(patches=()) for row in rows]
        most = np.int32(study.train_eval_images)
        sets["train_eval"] = _own("train", [source._replace(size=min(most, source.size)) for source in sources])
    if times.group.stage.data.patch.share:
        tests = times.tests
        carried = [schedule.patched(run, data, "test", images) for run, images in zip(runs, tests, strict=True)]
        sets["patched"] = _own("test", _by_run(times, tests, data.test_labels, carried))
        black = [np.resize(images, PATCHES).astype(np.int32) for images in tests]  # only their labels matter
        only = [patch._replace(flags=np.ones(PATCHES, np.bool_), only=np.bool_(True)) for patch in carried]
        sets["patch_only"] = _own("test", _by_run(times, black, data.test_labels, only))
    return sets


@functools.lru_cache(maxsize=4)
def probes(times: Timetable) -> dict[str, Probe]:
    """The probes `train` and `test` of the diagnostics of each run of a group: leaves [R, ...].

    These are the first images of the run's pool, with its training labels, and of its test images; repeated if there
    are fewer, so that a probe does not depend on the other runs.
    """
    labels, runs_of, numbers = times.dataset.test_labels, times.group.runs, range(len(times.group.runs))
    told = [schedule.told_apart(run, times.dataset) for run in runs_of]
    trained = [(pool.indices, pool.labels) for pool in times.pools]
    tested = [(index, labels[index]) for index in times.tests]

    def rows(images: Sequence[tuple[np.ndarray, np.ndarray]], trained: bool) -> Probe:
        streams = [schedule.stream(times, row, trained) for row in numbers]
        return run_axis.stack_on_host(
            [
                Probe(np.resize(index, PROBE).astype(np.int32), np.resize(label, PROBE).astype(np.int32), *rest)
                for (index, label), *rest in zip(images, told, streams, strict=True)
            ]
        )

    return {"train": rows(trained, True), "test": rows(tested, False)}


def _shared(labels: np.ndarray, first: int, last: int) -> Scored:
    source = schedule.plain_source(np.arange(first, last, dtype=np.int32), labels)
    return Scored(source, "test", False, last - first)


def _own(split: str, sources: Sequence[batches.Source]) -> Scored:
    return Scored(run_axis.stack_on_host(sources), split, True, max(int(source.size) for source in sources))


def _by_run(
    times: Timetable, indices: Sequence[np.ndarray], labels: np.ndarray, patches: Sequence[Any] = ()
) -> list[batches.Source]:
    """A source for each run, of the images at its `indices`, padded to the longest."""
    longest = max(map(len, indices))
    told = [schedule.told_apart(run, times.dataset) for run in times.group.runs]
    parts = zip(indices, told, patches or [()] * len(told), strict=True)
    sources = [schedule.plain_source(where, labels, longest, classes, patched) for where, classes, patched in parts]
    return [one._replace(tasks=schedule.stream(times, row, trained=False)) for row, one in enumerate(sources)]
