"""Prepares packs for training: timetables, programs, and checks."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.config.plan import unfold
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.data.records import Records
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters, units
from plasticity_jax.parallel import run_axis
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner import schedule
from plasticity_jax.runner.context import Compute, Context
from plasticity_jax.runner.parts import Parts
from plasticity_jax.runner.progress import Progress
from plasticity_jax.storage.timers import Clock
from plasticity_jax.training import state, step
from plasticity_jax.training.gradient import forward, try_out
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.resets import factors


def compute(pack: spec.Pack, study: spec.Study, dataset: Dataset, parts: Parts) -> Compute:
    """The `Compute` of a pack, with `auto` resolved for this machine and the group with the most runs.

    Raises:
      ConfigError: the data, or a network of a user, do not suit the plan.
    """
    timetables = draw_up(pack, study, dataset)
    count = max(len(times.group.runs) for times in timetables.values())
    strategy = run_axis.choose(study.strategy, pack.model.name, count)
    place = "device" if study.images == "auto" else study.images
    if isinstance(dataset.train_images, Records):  # which do not fit into memory
        place = "disk"
    choice = {"strategy": strategy, "dtype": models.compute_dtype(pack.model.dtype), "images": place}
    drawn = _compute(pack, study, dataset, parts, timetables, choice)
    if parts.brings_network(pack):
        try_out(drawn.programs.model, *drawn.network, dataset.shape)
    return drawn


def resumed(drawn: Compute, before: Mapping[str, str]) -> Compute:
    """`drawn` with the `choice` recorded when its directory was begun, except for the place of images."""
    place = {} if drawn.study.images == "auto" and before.get("images") != "disk" else {"images": drawn.place}
    choice = drawn.choice | dict(before) | place
    return drawn if choice == drawn.choice else taking(drawn, choice)


def taking(drawn: Compute, choice: Mapping[str, str]) -> Compute:
    """The same with another `choice`."""
    return _compute(drawn.pack, drawn.study, drawn.dataset, drawn.parts, drawn.timetables, choice)


def _compute(
    pack: spec.Pack,
    study: spec.Study,
    dataset: Dataset,
    parts: Parts,
    timetables: Mapping[str, schedule.Timetable],
    choice: Mapping[str, str],
) -> Compute:
    pack = dataclasses.replace(pack, model=dataclasses.replace(pack.model, dtype=choice["dtype"]))
    model, normalisation, shape = parts.network(pack, dataset), scale(study, dataset), dataset.shape
    functions = parts.diagnostics, parts.resets, parts.remedies, parts.instruments
    return Compute(
        pack=pack,
        study=study,
        dataset=dataset,
        parts=parts,
        timetables=timetables,
        network=state.network_like(model, shape),
        images=step.Images(dataset.train_images, *normalisation, side=dataset.side),
        test_images=step.Images(dataset.test_images, *normalisation, side=dataset.side),
        programs=Programs(model, shape, choice["strategy"], study.eval_batch, *functions),
        place=choice["images"],
    )


def context(
    drawn: Compute, directory: Path, progress: Progress, stopped: Callable[[], bool] = lambda: False
) -> Context:
    """The context for training a pack in a directory; compiles and writes nothing."""
    clock = Clock(directory / "clock.json")
    return Context(**vars(drawn), directory=directory, clock=clock, progress=progress, stopped=stopped)


def draw_up(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> dict[str, schedule.Timetable]:
    """The timetable of each group of a pack, in the order in which they train."""
    return {group.name: schedule.draw_up(group, study, dataset) for group in unfold(pack, study.seeds)}


def check(drawn: Compute) -> None:
    """Raises a ConfigError if a stage names a module, to reset or to train, that the network does not have.

    Also if the network lacks units or features that a remedy needs, or a custom one has too few outputs.
    """
    treated = any(times.group.stage.remedies for times in drawn.timetables.values())
    features = _outputs(drawn)[1] if treated else {}  # once, since tracing a network takes long
    for times in drawn.timetables.values():
        like = state.like(drawn.network, times.group.stage, drawn.parts.remedies)
        parameters.select(like.params, times.group.stage.trained)
        for run in times.group.runs:
            factors(run.stage.reset, like)
        if times.group.stage.remedies:
            apply.check_network(times.group.stage, units.sites(drawn.programs.model), features)
    if drawn.parts.brings_network(drawn.pack):
        _check_outputs(drawn)


def _outputs(drawn: Compute) -> tuple[jax.ShapeDtypeStruct, Mapping[str, jax.ShapeDtypeStruct]]:
    """The shapes of logits and features for 2 images."""
    images = jax.ShapeDtypeStruct((2, *drawn.dataset.shape), np.float32)
    call = functools.partial(forward, drawn.programs.model, train=False)
    return jax.eval_shape(call, *drawn.network, images)[:2]


def _check_outputs(drawn: Compute) -> None:
    dataset, (logits, _) = drawn.dataset, _outputs(drawn)
    some = any(times.group.stage.restricted for times in drawn.timetables.values())
    wide = len(logits.shape) == 2 and (
        logits.shape[1] == dataset.classes if some else logits.shape[1] >= dataset.classes
    )
    if not wide:
        raise ConfigError(
            f"the custom model returns logits of the shape {logits.shape} for 2 images; {dataset.name} has "
            f"{dataset.classes} classes, so give its head as many outputs"
        )


def scale(study: spec.Study, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(mean, std), float32 [C], for the normalisation of images: from the config, or else of the data.

    Raises:
      ConfigError: the number of values is not that of the channels.
    """
    channels, moments = dataset.train_images.shape[-1], []
    for name in ("mean", "std"):
        chosen = getattr(study, name)
        if len(chosen) not in (0, channels):
            raise ConfigError(f"config.{name}={chosen}: {dataset.name} has {channels} channels; give a number for each")
        moments.append(np.asarray(chosen or getattr(dataset, name), np.float32))
    return moments[0], moments[1]
