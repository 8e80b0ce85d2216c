"""Optimisers from optax, and learning-rate schedules as a multiplier of one traced learning rate.

The learning rate, momentum and weight decay are data (`Hyper`), not structure, so they may differ between
runs that share one compiled program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity_jax.config.spec import Detector, Optim
from plasticity_jax.errors import ConfigError
from plasticity_jax.training import detectors

ArrayLike = jax.Array | np.ndarray | float
Tree = Any

OPTIMISERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "step", "autodecay", "cosine", "linear")
DETECTORS = ("window", "plateau", "slope", "sasa", "abel")
LEAST = {"slope": detectors.UPDATES, "sasa": detectors.UPDATES}  # by detector, where a config says 0


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
    warmup: ArrayLike
    milestones: ArrayLike
    decay: ArrayLike


def hyper(optim: Optim) -> Hyper:
    """The traced half of `optim`; the other half is in `Stage.shape`."""
    return Hyper(*(np.asarray(getattr(optim, name), np.float32) for name in Hyper._fields))


def watch(detector: Detector) -> Watch:
    """The traced half of `detector`; the other half is in `Stage.shape`."""
    kinds = {"patience": np.int32, "least": np.int32, "end_last": np.bool_}
    numbers = Watch(*(kinds.get(name, np.float32)(getattr(detector, name)) for name in Watch._fields))
    own = min(detector.capacity, LEAST.get(detector.name, 0))
    return numbers if detector.least else numbers._replace(least=np.asarray(own, np.int32))


def detector(optim: Optim, numbers: Watch | None = None) -> detectors.Detector | None:
    """What ends the learning stages of `optim`, by its own `numbers` if none are given; None where nothing does.

    Raises:
      ConfigError: no such detector.
    """
    if optim.schedule != "autodecay":
        return None
    spec, w = optim.detector, numbers or watch(optim.detector)
    match spec.name:
        case "window":
            return detectors.window(spec.window, w.rtol, w.atol, w.z, w.least)
        case "plateau":
            return detectors.plateau(w.patience, w.rtol)
        case "slope":
            return detectors.slope(w.keep, w.least, w.significance, spec.capacity)
        case "sasa":
            return detectors.sasa(w.keep, w.least, w.significance, spec.capacity)
        case "abel":
            return detectors.abel()
    raise ConfigError(f"optim.detector.name={spec.name!r}: choose one of {DETECTORS}")


def optimiser(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> optax.GradientTransformation:
    """The optax optimiser of one step; its state depends on neither `h` nor `learning_rate`.

    Raises:
      ConfigError: no such optimiser.
    """
    momentum = h.momentum if optim.momentum > 0 else None
    match optim.name:
        case "sgd":
            rule = optax.sgd(learning_rate, momentum, optim.nesterov)
        case "adam":
            rule = optax.chain(scale_by_adam(h.b1, h.b2, h.eps), optax.scale_by_learning_rate(learning_rate))
        case "adamw":
            rule = optax.chain(
                scale_by_adam(h.b1, h.b2, h.eps),
                optax.add_decayed_weights(h.weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            )
        case "rmsprop":
            # PyTorch's RMSprop: squares decay with b2 (0.99 there), eps outside of the root.  Momentum comes before the
            # learning rate, which `optax.rmsprop` has the other way round: a schedule would come late.
            rule = optax.chain(
                optax.scale_by_rms(h.b2, h.eps, eps_in_sqrt=False),
                optax.identity() if momentum is None else optax.trace(momentum, optim.nesterov),
                optax.scale_by_learning_rate(learning_rate),
            )
        case _:
            raise ConfigError(f"optim.name={optim.name!r}: choose one of {OPTIMISERS}")
    clip = optax.clip_by_global_norm(h.clip_norm) if optim.clip_norm > 0 else optax.identity()
    decay = optax.identity() if optim.name == "adamw" else optax.add_decayed_weights(h.weight_decay)
    return optax.chain(clip, decay, rule)


def scale_by_adam(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with a count of steps for each parameter, the same bits where all counts are equal.

    The count corrects the bias of moments that began at zero, so it has to begin again where the moments do.
    """

    def init(params: Tree) -> optax.ScaleByAdamState:
        start = optax.scale_by_adam().init(params)
        return start._replace(count=jax.tree.map(lambda _: start.count, params))

    def update(
        updates: Tree, state: optax.ScaleByAdamState, params: Tree = None
    ) -> tuple[Tree, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        count = jax.tree.map(optax.safe_increment, state.count)

        def step(m: jax.Array, v: jax.Array, n: jax.Array) -> jax.Array:
            # Behind a barrier, or XLA would multiply by the reciprocal of a scalar that only one leaf is divided by.
            first, second = jax.lax.optimization_barrier([jnp.broadcast_to(1 - b**n, m.shape) for b in (b1, b2)])
            return m / first / (jnp.sqrt(v / second) + eps)

        return jax.tree.map(step, mu, nu, count), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def of_parameters(opt: Tree, chosen: Tree) -> Tree:
    """Which leaves of an optimiser's state belong to the `chosen` parameters (a bool for each): the tree with bools."""
    structure: Any = jax.tree.structure(chosen)

    def is_moment(part: Tree) -> bool:  # of all parameters
        return structure == jax.tree.structure(part)

    return jax.tree.map(lambda part: chosen if is_moment(part) else False, opt, is_leaf=is_moment)


def multiplier(schedule: str, h: Hyper, done: ArrayLike) -> jax.Array:
    """What the learning rate is multiplied by when the share `done` in [0, 1) of a stage lies behind.

    Raises:
      ConfigError: no such schedule.
    """
    warm = jnp.where(h.warmup > 0, jnp.minimum(done / jnp.maximum(h.warmup, 1e-9), 1.0), 1.0)
    left = jnp.clip((done - h.warmup) / jnp.maximum(1.0 - h.warmup, 1e-9), 0.0, 1.0)
    match schedule:
        case "constant":
            shape = jnp.float32(1.0)
        case "step" | "autodecay":  # which differ in what `done` counts
            shape = h.decay ** jnp.sum(done >= h.milestones)
        case "cosine":
            shape = h.decay + (1.0 - h.decay) * 0.5 * (1.0 + jnp.cos(jnp.pi * left))
        case "linear":
            shape = 1.0 + (h.decay - 1.0) * left
        case _:
            raise ConfigError(f"optim.schedule={schedule!r}: choose one of {SCHEDULES}")
    return warm * shape
