"""Programs of the lab compiled for a described device."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import study_config
from plasticity_jax.configs.base import base, stage
from plasticity_jax.parallel.run_axis import Program
from plasticity_jax.profiling import cost, memory_check
from plasticity_jax.runner import prepare
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.progress import Progress


def study(runs: int, depth: int = 2, width: int = 64, batch: int = 128, **top: Any) -> ConfigDict:
    """CIFAR-10 in one stage: ResNet-18 with the ImageNet stem, or one of another depth and width.

    `top` are further keys, as `model.dtype`.
    """
    config = base()
    config.update(dataset="cifar10", seeds=tuple(range(runs)))
    config.model.update(name="resnet", depth=depth, width=width, stem="imagenet")
    config.stages = ConfigDict({"train": stage(epochs=1.0, batch_size=batch)})
    config.update_from_flattened_dict(top)
    return config


def context(config: ConfigDict) -> Context:
    """What its only pack shares, for the devices that are meant now."""
    found = study_config.parse(config)
    (pack,) = found.packs
    dataset, own = cost.load(*found.data), prepare.complete(prepare.Own(None, {}, {}), found)
    draft = prepare.draft(pack, found, dataset, own)
    return prepare.context(draft, found, dataset, own, Path("/nonexistent"), Progress(0))


def compiled(of: Context, *kinds: str) -> dict[str, Program]:
    """Its programs of these kinds, or all."""
    (times,) = of.timetables.values()
    calls = [call for call in memory_check.calls(times, of) if call.kind in kinds or not kinds]
    return {call.kind: of.programs.program(call.kind, call.stage, *call.args) for call in calls}


def text(program: Program) -> str:
    """The instructions that the compiler has made of it."""
    assert program.compiled is not None
    found = program.compiled.as_text()
    assert found is not None
    return found
