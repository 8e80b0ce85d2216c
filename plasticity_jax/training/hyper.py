"""The traced numbers of an optimiser and a detector, which may differ between runs of one program."""

from typing import NamedTuple

import jax
import numpy as np

from plasticity_jax.config.optim import Detector, Optim
from plasticity_jax.config.spec import Stage
from plasticity_jax.training import detectors

ArrayLike = jax.Array | np.ndarray | float

LEAST = {"slope": detectors.UPDATES, "sasa": detectors.UPDATES}  # by detector, used where `least` is 0


class Watch(NamedTuple):
    """The numbers of a `Detector` that may differ between runs; float32, int32 and bool scalars."""

    rtol: ArrayLike
    atol: ArrayLike
    z: ArrayLike
    patience: ArrayLike
    least: ArrayLike
    keep: ArrayLike
    significance: ArrayLike
    end_last: ArrayLike


class Hyper(NamedTuple):
    """The numbers of an `Optim` that may differ between runs; float32 scalars, `milestones` float32 [M]."""

    learning_rate: ArrayLike
    momentum: ArrayLike
    b1: ArrayLike
    b2: ArrayLike
    eps: ArrayLike
    weight_decay: ArrayLike
    clip_norm: ArrayLike
    rho: ArrayLike
    warmup: ArrayLike
    milestones: ArrayLike
    decay: ArrayLike


def hyper(optim: Optim) -> Hyper:
    """The traced fields of `optim`; the compiled ones are in `Stage.shape`."""
    return Hyper(*(np.asarray(getattr(optim, name), np.float32) for name in Hyper._fields))


def of_stage(stage: Stage) -> Hyper:
    """The traced fields of a stage's optimiser, with the learning rate for its batch size."""
    return hyper(stage.optim)._replace(learning_rate=np.asarray(stage.optim.rate(stage.batch_size), np.float32))


def watch(detector: Detector) -> Watch:
    """The traced fields of `detector`; the compiled ones are in `Stage.shape`."""
    kinds = {"patience": np.int32, "least": np.int32, "end_last": np.bool_}
    numbers = Watch(*(kinds.get(name, np.float32)(getattr(detector, name)) for name in Watch._fields))
    default = min(detector.capacity, LEAST.get(detector.name, 0))
    return numbers if detector.least else numbers._replace(least=np.asarray(default, np.int32))
