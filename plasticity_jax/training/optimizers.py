"""Optimisers from optax, each a function of (optim, hyper, learning rate).  To add one, put it into `OPTIMISERS`."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from plasticity_jax import target
from plasticity_jax.config.spec import Optim
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import products
from plasticity_jax.training import muon
from plasticity_jax.training.hyper import ArrayLike, Hyper

Tree = Any
Rule: TypeAlias = optax.GradientTransformation


def sgd(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """Stochastic gradient descent, with momentum if it is above 0."""
    return optax.sgd(learning_rate, _momentum(optim, h), optim.nesterov)


def adam(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """Adam, with weight decay as an L2 penalty."""
    del optim
    return optax.chain(scale_by_adam(h.b1, h.b2, h.eps), optax.scale_by_learning_rate(learning_rate))


def adamw(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """Adam with decoupled weight decay."""
    return optax.chain(
        scale_by_adam(h.b1, h.b2, h.eps),
        weight_decay(optim, h),
        optax.scale_by_learning_rate(learning_rate),
    )


def rmsprop(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """PyTorch's RMSprop: squares decay with b2 (0.99 there), eps is outside the root.

    Momentum is applied before the learning rate; `optax.rmsprop` has the opposite order, which delays a schedule.
    """
    momentum = _momentum(optim, h)
    return optax.chain(
        optax.scale_by_rms(h.b2, h.eps, eps_in_sqrt=False),
        optax.identity() if momentum is None else optax.trace(momentum, optim.nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def _momentum(optim: Optim, h: Hyper) -> ArrayLike | None:
    return h.momentum if optim.momentum > 0 else None


OPTIMISERS: dict[str, Callable[[Optim, Hyper, ArrayLike], Rule]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "muon": muon.muon,
}
DECOUPLED = {"adamw", "muon"}  # these apply weight decay themselves; for all others it is an L2 penalty


def optimiser(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """The optax optimiser for one step; its state depends on neither `h` nor `learning_rate`.

    With `rho` above 0 it is SAM (Foret et al. 2021), whose `update` also takes `grad_fn`, from (parameters, 0) to the
    gradient on the same batch.  It uses the gradient at distance `rho` along the normalised gradient, then clips it.

    Raises:
      ConfigError: there is no such optimiser.
    """
    if optim.name not in OPTIMISERS:
        raise ConfigError(f"optim.name={optim.name!r}: choose one of {', '.join(OPTIMISERS)}")
    rule = OPTIMISERS[optim.name](optim, h, learning_rate)
    clip = optax.clip_by_global_norm(h.clip_norm) if optim.clip_norm > 0 else optax.identity()
    decay = optax.identity() if optim.name in DECOUPLED else weight_decay(optim, h)
    whole = optax.chain(clip, decay, rule)
    if optim.rho == 0:
        return whole
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(h.rho))
    return optax.contrib.sam(whole, ascent, opaque_mode=True)


def weight_decay(optim: Optim, h: Hyper) -> Rule:
    """Adds the decay to the updates of parameters selected by `optim.decayed`; the state does not depend on it."""
    if optim.decayed == "all":
        return optax.add_decayed_weights(h.weight_decay)

    def add(updates: Tree, params: Tree) -> Tree:
        return jax.tree.map(lambda g, p: g + h.weight_decay * p if p.ndim > 1 else g, updates, params)

    return optax.stateless(add)


def scale_by_adam(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with a step count per parameter; bit-equal to it if all counts are equal.

    The count corrects the bias of moments that start at zero, so it must restart where the moments are reset.
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
            first, second = [1 - b**n for b in (b1, b2)]
            if target.backend() == "cpu" and not products.are_together():
                # Otherwise XLA multiplies by the reciprocal if only one leaf is divided by the scalar: other bits.
                full = [jnp.broadcast_to(scalar, m.shape) for scalar in (first, second)]
                first, second = jax.lax.optimization_barrier(full)
            return m / first / (jnp.sqrt(v / second) + eps)

        return jax.tree.map(step, mu, nu, count), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def scales(optim: Optim, h: Hyper, opt: Tree, square: Tree) -> Tree | None:
    """The elementwise divisor of the gradient in the next step, if `square` is the square of that gradient.

    For Adam and RMSprop the root of the second moment in their state `opt`; None for other optimisers.
    """

    def divides(part: Tree) -> bool:
        return isinstance(part, (optax.ScaleByAdamState, optax.ScaleByRmsState))

    kept = [part for part in jax.tree.leaves(opt, is_leaf=divides) if divides(part)]
    if not kept or optim.name not in ("adam", "adamw", "rmsprop"):
        return None
    moment = jax.tree.map(lambda old, new: h.b2 * old + (1 - h.b2) * new, kept[0].nu, square)
    if isinstance(kept[0], optax.ScaleByAdamState):
        moment = jax.tree.map(lambda v, n: v / (1 - h.b2 ** (n + 1)), moment, kept[0].count)
    return jax.tree.map(lambda v: jnp.sqrt(v) + h.eps, moment)


def count_by_weight(opt: Tree, params: Tree) -> Tree:
    """The optimiser's initial state with one step count per weight, since single weights may be reset."""
    structure: Any = jax.tree.structure(params)

    def is_moment(part: Tree) -> bool:
        return structure == jax.tree.structure(part)

    def spread(part: Tree) -> Tree:
        return jax.tree.map(lambda leaf, weight: jnp.broadcast_to(leaf, jnp.shape(weight)), part, params)

    return jax.tree.map(lambda part: spread(part) if is_moment(part) else part, opt, is_leaf=is_moment)


def counted_like(opt: Tree, like: Tree) -> Tree:
    """The optimiser's state in numpy, with step counts per weight or per parameter array, as in `like`."""
    return jax.tree.map(lambda a, b: np.broadcast_to(a, b.shape) if b.ndim else np.max(a), opt, like)


def of_parameters(opt: Tree, chosen: Tree) -> Tree:
    """Marks (bool) the leaves of an optimiser's state that belong to the `chosen` parameters (a bool for each)."""
    structure: Any = jax.tree.structure(chosen)

    def is_moment(part: Tree) -> bool:  # of all parameters
        return structure == jax.tree.structure(part)

    return jax.tree.map(lambda part: chosen if is_moment(part) else False, opt, is_leaf=is_moment)
