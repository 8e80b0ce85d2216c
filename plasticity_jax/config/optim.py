"""Fields of the optimiser, the learning-rate schedule and the stage detector; annotated as in `spec`."""

import dataclasses
from typing import Annotated

from plasticity_jax.config.rules import (
    COMPILED,
    COMPILED_COUNT,
    COMPILED_IF_ANY,
    NameOf,
    one_of,
    real,
    several,
    truth,
    whole,
)

DECAYED = ("all", "kernels")


@dataclasses.dataclass(frozen=True)
class Detector:
    """When the schedule `autodecay` ends a learning stage; `training.detectors` defines each detector.

    name: `window`, `plateau`, `slope`, `sasa` or `abel`.
    window: number of epochs averaged (window).
    rtol, atol: smallest relative and absolute gain that counts (window; plateau uses rtol only).
    z: smallest gain that counts, in standard errors (window).
    patience: number of epochs without a gain before the stage ends (plateau).
    least: smallest number of epochs (window) or updates (slope, sasa) before a learning stage may end; 0 for the
        detector's default: 0 for window; for slope and sasa 1000, or their capacity if that is smaller.
    keep, capacity: fraction of the most recent updates that is tested, and their largest number (slope, sasa).
    significance: level of the test (slope, sasa).
    end_last: whether the last learning stage, and with it the whole stage, may end early.
    """

    name: Annotated[str, NameOf("detectors"), COMPILED]
    window: Annotated[int, whole(1), COMPILED]
    rtol: Annotated[float, real("[0, 1)")]
    atol: Annotated[float, real("[0, inf)")]
    z: Annotated[float, real("[0, inf)")]
    patience: Annotated[int, whole(0)]
    least: Annotated[int, whole(0)]
    keep: Annotated[float, real("(0, 1]")]
    capacity: Annotated[int, whole(4), COMPILED]
    significance: Annotated[float, real("(0, 1)")]
    end_last: Annotated[bool, truth]


@dataclasses.dataclass(frozen=True)
class Optim:
    """An optimiser and its learning-rate schedule.

    name: `sgd`, `adam`, `adamw`, `rmsprop` or `muon`.
    momentum: 0 for none.
    weight_decay: coefficient of an L2 penalty; decoupled from the gradient for `adamw` and `muon`.
    clip_norm: largest norm of the gradient; 0 for no clipping.
    decayed: which parameters are decayed: `all`, or `kernels`, which leaves out biases, scales and offsets.
    reference_batch: batch size for which `learning_rate` is given; it is scaled in proportion for other sizes (the
        linear scaling rule of Goyal et al. 2017, section 2.1, who warm up for 5 epochs).  0 for no scaling.
    rho: radius of sharpness-aware minimisation (SAM), with any optimiser; 0 for none.
    schedule: `constant`, `step` (times `decay` at each of `milestones`), `autodecay` (as `step`, but `detector` may
        end each learning stage between milestones early), `cosine` or `linear` (both from the learning rate down to
        `decay` times it).  All begin with a linear warm-up.
    milestones, warmup: fractions of the stage's length, in [0, 1].
    """

    name: Annotated[str, NameOf("optimizers"), COMPILED]
    learning_rate: Annotated[float, real("(0, inf)")]
    momentum: Annotated[float, real("[0, 1)"), COMPILED_IF_ANY]
    nesterov: Annotated[bool, truth, COMPILED]
    b1: Annotated[float, real("[0, 1)")]
    b2: Annotated[float, real("[0, 1)")]
    eps: Annotated[float, real("(0, inf)")]
    weight_decay: Annotated[float, real("[0, inf)")]
    clip_norm: Annotated[float, real("[0, inf)"), COMPILED_IF_ANY]
    rho: Annotated[float, real("[0, inf)"), COMPILED_IF_ANY]
    schedule: Annotated[str, NameOf("schedules"), COMPILED]
    warmup: Annotated[float, real("[0, 1]")]
    milestones: Annotated[tuple[float, ...], several(real("(0, 1)")), COMPILED_COUNT]
    decay: Annotated[float, real("[0, 1]")]
    detector: Detector
    decayed: Annotated[str, one_of(DECAYED), COMPILED]
    reference_batch: Annotated[int, whole(0)]

    def rate(self, batch_size: int) -> float:
        """The learning rate for batches of `batch_size` examples."""
        return self.learning_rate * batch_size / self.reference_batch if self.reference_batch else self.learning_rate

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the groups of fields that have no effect."""
        return () if self.schedule == "autodecay" else ("detector",)
