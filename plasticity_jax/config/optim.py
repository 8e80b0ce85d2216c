"""An optimiser, its schedule of the learning rate, and what may end a learning stage, as records.

The rules are those of `spec`.
"""

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
    """What ends a learning stage under the schedule `autodecay`; `detectors` says what each one looks at.

    name: `window`, `plateau`, `slope`, `sasa` or `abel`.
    window: epochs that are averaged (window).  rtol, atol: a smaller gain is none (window; rtol: plateau too).
    z: a gain below so many of its standard errors is none (window).  patience: epochs without a gain (plateau).
    least: epochs (window) or updates (slope, sasa) of a learning stage that are looked at before it may end; 0 for the
        detector's own: none of window; of slope and sasa 1000, or their capacity if that is less.
    keep, capacity: the last share of the updates that is looked at, and the most of them (slope, sasa).
    significance: level of the test (slope, sasa).
    end_last: the last learning stage may be ended too, and with it the stage; else it lasts its full length.
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

    name: `sgd`, `adam`, `adamw`, `rmsprop` or `muon`.  momentum 0 means none.  weight_decay is L2 for all but `adamw`
    and `muon`, where it is decoupled.  clip_norm 0 means none.
    decayed: what weight decay acts on: `all` parameters, or `kernels`, which leaves out biases, scales and offsets.
    reference_batch: the batch size that `learning_rate` is meant for; for others it grows in proportion (the linear
        scaling rule of Goyal et al. 2017, section 2.1, who warm up for 5 epochs).  0 for the rate as it is.
    rho: the radius of sharpness-aware minimisation (SAM), which any of them can be; 0 for none.
    schedule: `constant`, `step` (times `decay` at each of `milestones`), `autodecay` (the same, but each learning
        stage between milestones may be ended early by `detector`), `cosine` or `linear` (both down to `decay` times
        the learning rate); after a linear warm-up over `warmup`.  `milestones` and `warmup` are shares of the stage,
        in [0, 1].
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
        """The learning rate for batches of this size."""
        return self.learning_rate * batch_size / self.reference_batch if self.reference_batch else self.learning_rate

    @property
    def unused(self) -> tuple[str, ...]:
        """Groups of keys that change nothing."""
        return () if self.schedule == "autodecay" else ("detector",)
