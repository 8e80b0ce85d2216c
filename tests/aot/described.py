"""Programs of the lab compiled for a described device."""

from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import study_config
from plasticity_jax.configs.base import base, stage
from plasticity_jax.parallel.run_axis import Program
from plasticity_jax.profiling import cost, memory_check
from plasticity_jax.runner import prepare
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.parts import complete


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


def compute(config: ConfigDict) -> Compute:
    """The compute context of its only pack, on the current target devices."""
    found = study_config.parse(config)
    (pack,) = found.packs
    return prepare.compute(pack, found, cost.load(*found.data), complete(None, found))


def compiled(of: Compute, *kinds: str) -> dict[str, Program]:
    """Its compiled programs of the given kinds, or of all."""
    (times,) = of.timetables.values()
    calls = [call for call in memory_check.calls(times, of) if call.kind in kinds or not kinds]
    return {call.kind: of.programs.program(call.kind, call.stage, *call.args) for call in calls}


def text(program: Program) -> str:
    """The compiler's instructions of the program, as text."""
    assert program.compiled is not None
    instructions = program.compiled.as_text()
    assert instructions is not None
    return instructions
