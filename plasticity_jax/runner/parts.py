"""The functions of a study: those named in its config, and custom ones given from Python."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.config.remedies import Remedy as Named
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.diagnostics import DIAGNOSTICS, INSTRUMENTS
from plasticity_jax.lookup import OWN, lookup
from plasticity_jax.models import interface
from plasticity_jax.storage.fingerprints import fingerprint
from plasticity_jax.training.evaluation import Diagnostic
from plasticity_jax.training.measuring import Instrument
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.resets import RESETS, CustomReset


@dataclasses.dataclass(frozen=True)
class Parts:
    """Functions of a study: a custom network (or None), and resets, diagnostics, remedies and instruments by name."""

    model: nn.Module | None = None
    resets: Mapping[str, CustomReset] = dataclasses.field(default_factory=dict)
    diagnostics: Mapping[str, Diagnostic] = dataclasses.field(default_factory=dict)
    remedies: Mapping[str, apply.Function] = dataclasses.field(default_factory=dict)
    instruments: Mapping[str, Instrument] = dataclasses.field(default_factory=dict)

    def network(self, pack: spec.Pack, dataset: Dataset) -> nn.Module:
        """The network of a pack; a custom one is checked."""
        if self.model is not None:
            return self.model
        network = models.build(pack.model, dataset.classes)
        return network if pack.model.name in models.MODELS else interface.check(network)

    def brings_network(self, pack: spec.Pack) -> bool:
        """Whether the network of a pack is custom."""
        return self.model is not None or pack.model.name not in models.MODELS

    def code(self, study: spec.Study) -> dict[str, str]:
        """Fingerprints of the custom functions that the study uses, by kind and name."""
        named = _resets(study)
        given: dict[str, Any] = {"model": self.model} if self.model else {}
        if self.model is None:
            names = [pack.model.name for pack in study.packs if self.brings_network(pack)]
            given |= {f"model {name}": lookup(models.MODELS, name, "model.name") for name in names}
        given |= {f"reset {name}": reset for name, reset in self.resets.items() if name in named}
        given |= {f"remedy {each.name}": self.remedies[each.name] for each in _remedies(study, self.remedies)}
        given |= {f"diagnostic {name}": diagnostic for name, diagnostic in self.diagnostics.items()}
        given |= {f"instrument {name}": instrument for name, instrument in self.instruments.items()}
        of_the_lab = {id(function) for known in (RESETS, DIAGNOSTICS, INSTRUMENTS) for function in known.values()}
        return {name: fingerprint(thing) for name, thing in given.items() if id(thing) not in of_the_lab}


def complete(given: Parts | None, study: spec.Study) -> Parts:
    """The parts given from Python and those named in the study's config, built-in or as `module:function`.

    Raises:
      ConfigError: a name is unknown, or the numbers of a remedy are not those of its function.
    """
    given = given or Parts()
    resets = {name: lookup(RESETS, name, "reset.function") for name in _resets(study) if name not in given.resets}
    diagnostics = {
        name: lookup(DIAGNOSTICS, name, "diagnostics") for name in study.diagnostics if name not in given.diagnostics
    }
    instruments = {
        name: lookup(INSTRUMENTS, name, "instruments") for name in study.instruments if name not in given.instruments
    }
    remedies = dict(given.remedies)
    for named in _remedies(study, [each.name for each in _remedies(study) if OWN.fullmatch(each.name)]):
        remedies.setdefault(named.name, lookup({}, named.name, f"remedies.{named.name}"))
    for named in _remedies(study):
        apply.check(named, remedies)
    return Parts(
        given.model,
        resets | dict(given.resets),
        diagnostics | dict(given.diagnostics),
        remedies,
        instruments | dict(given.instruments),
    )


def _remedies(study: spec.Study, names: Collection[str] | None = None) -> list[Named]:
    """The remedies of a study, or those of these names."""
    stages = [stage for pack in study.packs for _, plan in pack.plans for stage in plan]
    found = dict.fromkeys(remedy for stage in stages for remedy in stage.remedies)
    return [remedy for remedy in found if names is None or remedy.name in names]


def _resets(study: spec.Study) -> list[str]:
    """Names of the further resets of a study."""
    stages = [stage for pack in study.packs for _, plan in pack.plans for stage in plan]
    return list(dict.fromkeys(stage.reset.function for stage in stages if stage.reset.function))
