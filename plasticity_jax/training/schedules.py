"""Learning-rate schedules as multipliers of a traced learning rate, and the detectors that end learning stages.

A schedule is a function of (hyper, done, left): `done` is the fraction of the stage that is over, in [0, 1), and `left`
the same fraction of the time after the warm-up.  To add one, put it into `SCHEDULES`; a detector, into `DETECTORS`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity_jax.config.optim import Detector, Optim
from plasticity_jax.errors import ConfigError
from plasticity_jax.training import detectors
from plasticity_jax.training.hyper import ArrayLike, Hyper, Watch, watch


def constant(h: Hyper, done: ArrayLike, left: jax.Array) -> ArrayLike:
    """Always 1."""
    del h, done, left
    return jnp.float32(1.0)


def step(h: Hyper, done: ArrayLike, left: jax.Array) -> ArrayLike:
    """Times `decay` at each of the milestones."""
    del left
    return h.decay ** jnp.sum(done >= h.milestones)


def cosine(h: Hyper, done: ArrayLike, left: jax.Array) -> ArrayLike:
    """Half a cosine period, from 1 down to `decay`."""
    del done
    return h.decay + (1.0 - h.decay) * 0.5 * (1.0 + jnp.cos(jnp.pi * left))


def linear(h: Hyper, done: ArrayLike, left: jax.Array) -> ArrayLike:
    """Linear, from 1 down to `decay`."""
    del done
    return 1.0 + (h.decay - 1.0) * left


SCHEDULES: dict[str, Callable[[Hyper, ArrayLike, jax.Array], ArrayLike]] = {
    "constant": constant,
    "step": step,
    "autodecay": step,  # here `done` includes the skipped parts of learning stages that ended early
    "cosine": cosine,
    "linear": linear,
}


def multiplier(schedule: str, h: Hyper, done: ArrayLike) -> jax.Array:
    """The factor on the learning rate after the fraction `done`, in [0, 1), of a stage.

    Raises:
      ConfigError: there is no such schedule.
    """
    warm = jnp.where(h.warmup > 0, jnp.minimum(done / jnp.maximum(h.warmup, 1e-9), 1.0), 1.0)
    left = jnp.clip((done - h.warmup) / jnp.maximum(1.0 - h.warmup, 1e-9), 0.0, 1.0)
    if schedule not in SCHEDULES:
        raise ConfigError(f"optim.schedule={schedule!r}: choose one of {', '.join(SCHEDULES)}")
    return warm * SCHEDULES[schedule](h, done, left)


DETECTORS: dict[str, Callable[[Detector, Watch], detectors.Detector]] = {
    "window": lambda spec, w: detectors.window(spec.window, w.rtol, w.atol, w.z, w.least),
    "plateau": lambda spec, w: detectors.plateau(w.patience, w.rtol),
    "slope": lambda spec, w: detectors.slope(w.keep, w.least, w.significance, spec.capacity),
    "sasa": lambda spec, w: detectors.sasa(w.keep, w.least, w.significance, spec.capacity),
    "abel": lambda spec, w: detectors.abel(),
}


def detector(optim: Optim, numbers: Watch | None = None) -> detectors.Detector | None:
    """The detector of `optim`, with traced `numbers` or else those of the config; None unless the schedule is
    `autodecay`.

    Raises:
      ConfigError: there is no such detector.
    """
    if optim.schedule != "autodecay":
        return None
    spec = optim.detector
    if spec.name not in DETECTORS:
        raise ConfigError(f"optim.detector.name={spec.name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[spec.name](spec, numbers or watch(spec))
