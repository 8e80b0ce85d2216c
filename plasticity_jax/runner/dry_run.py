"""The summary of a plan before it starts: stages, steps, parameters, device, number of programs to compile."""

from collections.abc import Mapping, Sequence

import clu.parameter_overview
import jax
import numpy as np

from plasticity_jax import models, target
from plasticity_jax.config import spec
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.diagnostics import PASSES
from plasticity_jax.runner import instruments, windows
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.eval_sets import scored_on
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.runner.units import count

CHANNELS = 4  # more channels are probably a mistake in the order of axes

Timetables = Mapping[str, Timetable]


def summary(drawn: Compute) -> str:
    """The plan of one pack as text; compiles nothing."""
    pack, timetables, dataset, params = drawn.pack, drawn.timetables, drawn.dataset, drawn.network[0]
    sizes = {name: clu.parameter_overview.count_parameters(params[name]) for name in models.module_names(params)}
    devices = target.devices()
    images, shared = sum(times.images() for times in timetables.values()), shared_images(timetables)
    dear = sum(instruments.passes(times, drawn) for times in timetables.values())
    dtype = "" if drawn.parts.brings_network(pack) else f"; {pack.model.dtype}"
    return "\n".join(
        [
            f"{pack.name}: {pack.model.name} on {dataset.name} {dataset.version}, "
            f"seeds {', '.join(map(str, drawn.study.seeds))}",
            *_describe_images(dataset),
            *(_describe(times) + _apart(times, timetables) + _measured(times, drawn) for times in timetables.values()),
            f"  {images:,} training images in all"
            + (f", and instruments cost as much as {dear:,}" if dear else "")
            + (f"; branches that share a stage save {shared:,} more" if shared else ""),
            f"  {sum(sizes.values()):,} parameters: {', '.join(f'{name} {size:,}' for name, size in sizes.items())}",
            f"  device: {len(devices)} x {devices[0].device_kind} ({target.backend()}); "
            f"strategy {drawn.programs.strategy}{dtype}; images on the {drawn.place}; "
            f"{expected_compilations(drawn)} programs to compile",
        ]
    )


def expected_compilations(drawn: Compute) -> int:
    """The number of programs that a pack compiles: `begin` and `advance` per stage shape, others per number of runs.

    With `loop` the number of runs makes no difference.
    """
    timetables = drawn.timetables

    def runs(times: Timetable) -> int:
        return 1 if drawn.programs.strategy == "loop" else len(times.group.runs)

    def shown(window: windows.Window) -> tuple[int, ...]:
        return window.like().images.shape

    def all_of(times: Timetable) -> np.ndarray:
        return np.arange(len(times.group.runs))

    shapes, trained, counts = set(), set(), set()
    for times in timetables.values():
        alike = (runs(times), tuple(sorted(times.group.stage.shape().items())))
        shapes.add(alike)
        trained.add((*alike, shown(windows.training(drawn, times, all_of(times)).window)))
        looks = windows.diagnosing(drawn, times, all_of(times))
        counts.add((runs(times), times.group.stage.restricted, *(shown(look.window) for look in looks)))
    evaluated = set()
    for times in timetables.values():
        for scored in scored_on(times, drawn.study, drawn.slots).values():
            images = shown(windows.scoring(drawn, scored, all_of(times)).window)
            shape = [np.shape(leaf)[scored.own :] for leaf in jax.tree.leaves(scored.source)]
            evaluated.add((runs(times), images, scored.own, *shape))
    measured = {
        (
            1 if drawn.programs.strategy_of("measure") == "loop" else len(t.group.runs),
            *sorted(t.group.stage.shape().items()),
            shown(windows.measuring(drawn, t).looking.window),
        )
        for t in timetables.values()
        if instruments.are_to_measure(t.group, drawn)
    }
    dear = len(drawn.programs.instruments) * len(measured)
    return 1 + len(shapes) + len(trained) + len(evaluated) + bool(drawn.programs.diagnostics) * len(counts) + dear


def shared_images(timetables: Timetables) -> int:
    """The number of training images saved because branches share stages."""

    def cost(name: str, row: int, epoch: int) -> int:
        times = timetables[name]
        parent = times.group.runs[row].parent
        steps = times.steps[row] if epoch == spec.END else times.target(row, epoch)
        before = cost(*parent) if parent else 0
        return before + steps * times.group.runs[row].stage.batch_size

    alone = sum(cost(n, i, spec.END) for n, t in timetables.items() for i, run in enumerate(t.group.runs) if run.final)
    return alone - sum(t.images() for t in timetables.values())


def _describe_images(dataset: Dataset) -> list[str]:
    height, width, channels = dataset.train_images.shape[1:]
    counts = f"{len(dataset.train_labels):,} to train and {dataset.tests:,} to test"
    cropped = f", of which networks see {dataset.side}x{dataset.side}" if dataset.side else ""
    lines = [
        f"  images: {counts}, height {height}, width {width}{cropped}, channels {channels}; {dataset.classes} classes"
    ]
    lines += [f"  note: {note}" for note in dataset.notes]
    if channels > CHANNELS:
        lines.append(
            f"  note: {channels} channels; images are [N, height, width, channels], so transpose [N, C, H, W] first"
        )
    return lines


def _describe(times: Timetable) -> str:
    group, runs = times.group, times.group.runs
    branches = ", ".join(dict.fromkeys(run.branch for run in runs))
    epochs = [steps / each for steps, each in zip(times.steps, times.epoch_steps, strict=True)]
    how = group.stage.augment
    augmented = "" if how == "none" else f" augmented by {how}"
    return (
        f"  stage {group.name}: {count(len(runs), 'run')} ({branches}), {_span(times.steps)} steps = {_span(epochs)} "
        f"epochs of {_span([len(pool.indices) for pool in times.pools])} images in batches of {group.stage.batch_size}"
        f"{augmented}, "
        f"{group.stage.optim.name} at {_span([run.stage.optim.rate(run.stage.batch_size) for run in runs])}, "
        f"evaluated {len(times.events)} times"
    )


def _measured(times: Timetable, drawn: Compute) -> str:
    """A line about measurements by instruments, with their cost in training images."""
    if not instruments.are_to_measure(times.group, drawn):
        return ""
    counts = [len(when) for when in times.measured]
    images = [min(drawn.study.measure_images, len(pool.indices)) for pool in times.pools]
    costs = [f"{name} {PASSES[name]:g}" for name in drawn.programs.instruments if name in PASSES]
    costs += [f"{name} unknown" for name in drawn.programs.instruments if name not in PASSES]
    return (
        f"\n    measured {_span(counts)} times on {_span(images)} images, passes over these: {', '.join(costs)}; "
        f"in all as much as {instruments.passes(times, drawn):,} training images"
    )


def _apart(times: Timetable, timetables: Timetables) -> str:
    """The compiled fields in which a group differs from the first group of its stage, if any."""
    stage = times.group.stage
    first = next(other.group.stage for other in timetables.values() if other.group.stage.name == stage.name).shape()
    other = [f"{key}={value!r}" for key, value in stage.shape().items() if (key, value) not in first.items()]
    return f"; a separate group: {', '.join(other)}" if other else ""


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:,.6g}" for value in (min(values), max(values)))
    return low if low == high else f"{low}-{high}"
