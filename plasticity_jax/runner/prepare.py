"""Packs before they train: their schedules and shapes, checks of both, and the parts that a user brings."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.config.plan import unfold
from plasticity_jax.config.remedies import Remedy as Named
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import OWN, lookup
from plasticity_jax.models import interface, parameters
from plasticity_jax.parallel import run_axis
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner import schedule
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.dry_run import summary
from plasticity_jax.runner.progress import Progress
from plasticity_jax.storage.fingerprints import fingerprint
from plasticity_jax.storage.timers import Clock
from plasticity_jax.training import state, step
from plasticity_jax.training.gradient import forward, try_out
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.resets import RESETS, OwnReset, factors
from plasticity_jax.training.step import Diagnostic

Timetables = dict[str, schedule.Timetable]
Network = tuple[Any, Any]  # the shapes of (params, statistics)


@dataclasses.dataclass(frozen=True)
class Own:
    """What a user brings from Python: a network (or None), and resets, diagnostics and remedies by name."""

    model: nn.Module | None
    resets: Mapping[str, OwnReset]
    diagnostics: Mapping[str, Diagnostic]
    remedies: Mapping[str, apply.Function] = dataclasses.field(default_factory=dict)

    def network(self, pack: spec.Pack, dataset: Dataset) -> nn.Module:
        """The network of a pack; one of a user is checked."""
        if self.model is not None:
            return self.model
        network = models.build(pack.model, dataset.classes)
        return network if pack.model.name in models.MODELS else interface.check(network)

    def brings_network(self, pack: spec.Pack) -> bool:
        """Whether the network of a pack is a user's."""
        return self.model is not None or pack.model.name not in models.MODELS

    def code(self, study: spec.Study) -> dict[str, str]:
        """Fingerprints of all of it that the study uses, by what it is."""
        named = _resets(study)
        given: dict[str, Any] = {"model": self.model} if self.model else {}
        if self.model is None:
            names = [pack.model.name for pack in study.packs if self.brings_network(pack)]
            given |= {f"model {name}": lookup(models.MODELS, name, "model.name") for name in names}
        given |= {f"reset {name}": reset for name, reset in self.resets.items() if name in named}
        given |= {f"remedy {each.name}": self.remedies[each.name] for each in _remedies(study, self.remedies)}
        given |= {f"diagnostic {name}": diagnostic for name, diagnostic in self.diagnostics.items()}
        of_the_lab = {id(function) for known in (RESETS, DIAGNOSTICS) for function in known.values()}
        return {name: fingerprint(thing) for name, thing in given.items() if id(thing) not in of_the_lab}


def complete(own: Own, study: spec.Study) -> Own:
    """`own` with the resets, diagnostics and remedies that the study's config names, of the lab and `module:function`.

    Raises:
      ConfigError: there is none of a name, or a remedy takes other numbers than it is given.
    """
    resets = {name: lookup(RESETS, name, "reset.function") for name in _resets(study) if name not in own.resets}
    diagnostics = {
        name: lookup(DIAGNOSTICS, name, "diagnostics") for name in study.diagnostics if name not in own.diagnostics
    }
    remedies = dict(own.remedies)
    for named in _remedies(study, [each.name for each in _remedies(study) if OWN.fullmatch(each.name)]):
        remedies.setdefault(named.name, lookup({}, named.name, f"remedies.{named.name}"))
    for named in _remedies(study):
        apply.check(named, remedies)
    return Own(own.model, resets | dict(own.resets), diagnostics | dict(own.diagnostics), remedies)


def _remedies(study: spec.Study, names: Collection[str] | None = None) -> list[Named]:
    """The remedies of a study, or those of these names."""
    stages = [stage for pack in study.packs for _, plan in pack.plans for stage in plan]
    found = dict.fromkeys(remedy for stage in stages for remedy in stage.remedies)
    return [remedy for remedy in found if names is None or remedy.name in names]


def _resets(study: spec.Study) -> list[str]:
    """Names of the further resets of a study."""
    stages = [stage for pack in study.packs for _, plan in pack.plans for stage in plan]
    return list(dict.fromkeys(stage.reset.function for stage in stages if stage.reset.function))


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """A pack drawn up; `choice` is the strategy and the dtype that it trains with."""

    pack: spec.Pack
    timetables: Timetables
    network: Network
    choice: Mapping[str, str]


def draft(pack: spec.Pack, study: spec.Study, dataset: Dataset, own: Own) -> Draft:
    """What is known of a pack before it trains; `auto` as this machine means it."""
    timetables = draw_up(pack, study, dataset)
    shape = dataset.train_images.shape[1:]
    network = state.network_like(own.network(pack, dataset), shape)
    if own.brings_network(pack):
        try_out(own.network(pack, dataset), *network, shape)
    return Draft(pack, timetables, network, choose(pack, timetables, study))


def context(
    draft: Draft,
    study: spec.Study,
    dataset: Dataset,
    own: Own,
    directory: Path,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
) -> Context:
    """What the stages of a pack share; nothing is compiled or written yet, nor is anything on the device."""
    pack = dataclasses.replace(draft.pack, model=dataclasses.replace(draft.pack.model, dtype=draft.choice["dtype"]))
    normalisation, shape = scale(study, dataset), dataset.train_images.shape[1:]
    network = own.network(pack, dataset)
    return Context(
        directory=directory,
        pack=pack,
        study=study,
        network=draft.network,
        dataset=dataset,
        images=step.Images(dataset.train_images, *normalisation),
        test_images=step.Images(dataset.test_images, *normalisation),
        timetables=draft.timetables,
        programs=Programs(
            network, shape, draft.choice["strategy"], study.eval_batch, own.diagnostics, own.resets, own.remedies
        ),
        clock=Clock(directory / "clock.json"),
        progress=progress,
        stopped=stopped,
    )


def describe(draft: Draft, study: spec.Study, dataset: Dataset, own: Own) -> str:
    """The plan of a pack as text."""
    names = tuple(dict.fromkeys((*study.diagnostics, *own.diagnostics)))
    strategy, dtype = draft.choice["strategy"], "" if own.brings_network(draft.pack) else draft.choice["dtype"]
    return summary(draft.pack, draft.timetables, study, draft.network[0], dataset, strategy, dtype, names)


def draw_up(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> Timetables:
    """The timetable of each group of a pack, in the order in which they are walked."""
    return {group.name: schedule.draw_up(group, study, dataset) for group in unfold(pack, study.seeds)}


def check_modules(draft: Draft, own: Own) -> None:
    """Raise a ConfigError if a stage names a module, to reset or to train, that the network does not have."""
    for times in draft.timetables.values():
        like = state.like(draft.network, times.group.stage, own.remedies)
        parameters.select(like.params, times.group.stage.trained)
        for each in times.group.runs:
            factors(each.stage.reset, like)


def check_outputs(draft: Draft, model: nn.Module, dataset: Dataset) -> None:
    """Raise a ConfigError if an own network does not tell all classes apart."""
    images = jax.ShapeDtypeStruct((2, *dataset.train_images.shape[1:]), np.float32)
    logits, _, _ = jax.eval_shape(functools.partial(forward, model, train=False), *draft.network, images)
    some = any(times.group.stage.restricted for times in draft.timetables.values())
    wide = len(logits.shape) == 2 and (
        logits.shape[1] == dataset.classes if some else logits.shape[1] >= dataset.classes
    )
    if not wide:
        raise ConfigError(
            f"the own model returns logits of the shape {logits.shape} for 2 images; {dataset.name} has "
            f"{dataset.classes} classes, so give its head as many outputs"
        )


def choose(pack: spec.Pack, timetables: Timetables, study: spec.Study) -> dict[str, str]:
    """What `auto` means for a pack on this machine; the strategy is the one for the stage with the most runs."""
    count = max(len(times.group.runs) for times in timetables.values())
    strategy = run_axis.choose(study.strategy, pack.model.name, count)
    return {"strategy": strategy, "dtype": models.compute_dtype(pack.model.dtype)}


def scale(study: spec.Study, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(mean, std), float32 [C], that images are normalised by: the study's own, or those of its data.

    Raises:
      ConfigError: not one number for each channel.
    """
    channels, found = dataset.train_images.shape[-1], []
    for name in ("mean", "std"):
        own = getattr(study, name)
        if len(own) not in (0, channels):
            raise ConfigError(f"config.{name}={own}: {dataset.name} has {channels} channels; give a number for each")
        found.append(np.asarray(own or getattr(dataset, name), np.float32))
    return found[0], found[1]
