"""Measuring the runs of a leg at one event: exact evaluation, diagnostics, and the table rows that come of it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax import peers, runs, sampling, timetable, train
from plasticity_jax.lab import Lab
from plasticity_jax.legs import Leg
from plasticity_jax.records import Row

Tree = Any
PROBE = 512  # test images that the diagnostics look at


def measure(
    leg: Leg, lab: Lab, states: Tree, initial: Tree, stop_if_asked: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Every metric [R] of the states, accuracies in percent.  Stops between batches if asked; nothing is lost then."""
    states = states.replace(opt=())  # nothing here looks at it, and so stages of other optimisers share the programs
    everything = test_source(lab)
    n_test = int(everything.size)
    values = _evaluate(lab.programs.evaluate, "test", states, everything, lab.test_images, n_test, lab, stop_if_asked)
    for name, sources in own_sources(lab.timetables[leg.name], lab).items():
        longest = int(sources.size.max())
        values |= _evaluate(lab.programs.evaluate_own, name, states, sources, lab.images, longest, lab, stop_if_asked)
    running = np.asarray(peers.fetch(states.last), np.float64)
    values |= {"train_loss": running[:, 0], "train_accuracy": running[:, 1]}
    if lab.programs.diagnostics:
        found = peers.fetch(lab.programs.diagnose(states, initial, probe(lab), lab.test_images))
        values |= {name: np.asarray(value, np.float64) for name, value in found.items()}
    return values


def test_source(lab: Lab) -> sampling.Source:
    """The test images of the study."""
    n_test = lab.study.test_images or len(lab.dataset.test_labels)
    return timetable.plain_source(np.arange(n_test, dtype=np.int32), lab.dataset.test_labels)


def own_sources(times: timetable.Timetable, lab: Lab) -> dict[str, sampling.Source]:
    """What each run is evaluated on by itself, by name; leaves [R, ...]."""
    own = {}
    if lab.study.validation_images:
        own["validation"] = [timetable.plain_source(held, lab.dataset.train_labels) for held in times.held_out]
    if lab.study.evaluate_train:
        pools = zip(times.pools, times.leg.runs, strict=True)
        own["train_eval"] = [timetable.source(pool, run.stage.data, lab.slots) for pool, run in pools]
    return {name: runs.stack_on_host(sources) for name, sources in own.items()}


def probe(lab: Lab) -> train.Batch:
    """The test images that the diagnostics look at, and their labels."""
    index = np.arange(min(PROBE, lab.study.test_images or len(lab.dataset.test_labels)), dtype=np.int32)
    return {"index": index, "label": lab.dataset.test_labels[index]}


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
    sums: dict[str, Any] = {"loss": 0.0, "correct": 0.0, "count": 0.0}
    waiting: list[train.Metrics] = []  # one batch is read while the next is at work
    for first in range(0, length, lab.programs.eval_batch):
        stop_if_asked()
        waiting.append(program(states, source, first, images))
        if len(waiting) > 1:
            sums = _add(sums, waiting.pop(0))
    sums = functools.reduce(_add, waiting, sums)
    return {f"{name}_loss": sums["loss"] / sums["count"], f"{name}_accuracy": 100.0 * sums["correct"] / sums["count"]}


def _add(sums: dict[str, Any], batch: train.Metrics) -> dict[str, Any]:
    found = peers.fetch(batch)
    return {key: sums[key] + np.asarray(found[key], np.float64) for key in sums}


def rows(
    leg: Leg,
    times: timetable.Timetable,
    closed: Sequence[bool],
    epoch: float,
    steps: np.ndarray,
    done: np.ndarray,
    values: Mapping[str, np.ndarray],
) -> tuple[list[Row], list[bool]]:
    """Table rows of this event, for the runs that it concerns; and which runs are recorded to their end now."""
    found: list[Row] = []
    for i, run in enumerate(leg.runs):
        if closed[i] or not (done[i] or epoch in times.points[i]):
            continue
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
        found += [{**common, **at_step, "metric": name, "value": float(values[name][i])} for name in metrics]
    return found, [bool(was or now) for was, now in zip(closed, done, strict=True)]
