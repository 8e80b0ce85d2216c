"""Remedies at the start of a stage: functions of (network, begun, numbers), by name in `STARTS`.

They act after the stage's reset, and before the memories of its other remedies are initialised.  `reset.optimiser`
decides what happens to the optimiser's state.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.rules import real
from plasticity_jax.models import injection, parameters
from plasticity_jax.training.remedies.interface import Begun, Network, Remedy

Tree = Any
Share = Annotated[Array, real("[0, 1]")]
ITERATIONS = 30  # of Newton-Schulz
TINY = 1e-12

_dot = functools.partial(jnp.matmul, precision="highest")


def fire(network: Network, begun: Begun) -> Network:
    """FIRE: replaces every kernel by the nearest orthogonal one, scaled: Han et al. 2026 (arXiv 2602.08040).

    W becomes its polar factor W (W^T W)^(-1/2) times sqrt(outputs / inputs); for a convolution separately at each
    kernel position, divided by the number of positions.  Zero matrices stay zero.  The paper's 5 Newton-Schulz
    iterations leave small singular values small; the 30 used here make the factor orthogonal.
    """
    del begun

    def one(leaf: Array) -> Array:
        if leaf.ndim < 2:
            return leaf
        scale = math.sqrt(leaf.shape[-1] / leaf.shape[-2]) / math.prod(leaf.shape[:-2])
        return jnp.where(jnp.any(leaf != 0, (-2, -1), keepdims=True), scale * polar(leaf), leaf)

    return network._replace(params=jax.tree.map(one, network.params))


def polar(matrices: Array) -> Array:
    """The polar factor of matrices [.., m, n], by iterating X <- 1.5 X - 0.5 X X^T X from X / |X|."""
    norms = jnp.sqrt(jnp.sum(jnp.square(matrices), (-2, -1), keepdims=True))

    def step(_: Any, x: Array) -> Array:
        turned = jnp.swapaxes(x, -2, -1)
        cube = _dot(x, _dot(turned, x)) if x.shape[-2] > x.shape[-1] else _dot(_dot(x, turned), x)
        return 1.5 * x - 0.5 * cube

    return jax.lax.fori_loop(0, ITERATIONS, step, matrices / jnp.maximum(norms, TINY))


def dash(network: Network, begun: Begun, *, momentum: Share, least: Share) -> Network:
    """DASH: shrinks weights that do not point along the negative gradient: Shin et al. 2024 (2410.23495).

    A running mean g <- (1 - momentum) g + momentum (-gradient) is computed over all batches of the stage's data (the
    paper's alpha is 0.3).  The kernel positions from one input to one output of a convolution, the incoming weights of
    an output of a dense layer, and the biases of a layer each form a vector, which is multiplied by its cosine with g,
    clipped to [least, 1] (lambda, 0.3).  Normalisations are unchanged, as in the released code.
    """
    mean = begun.sweep(
        network.params,
        network.stats,
        lambda g, slope: jax.tree.map(lambda old, new: (1 - momentum) * old - momentum * new, g, slope),
        jax.tree.map(jnp.zeros_like, network.params),
    )

    def shrink(leaf: Array, g: Array) -> Array:
        axes = tuple(range(leaf.ndim - 2)) or (0,)
        inner, sizes = (jnp.sum(a * b, axes, keepdims=True) for a, b in ((leaf, g), (leaf, leaf)))
        others = jnp.sum(g * g, axes, keepdims=True)
        return leaf * jnp.clip(inner / jnp.maximum(jnp.sqrt(sizes * others), TINY), least, 1)

    names, leaves = list(parameters.paths(network.params)), jax.tree.leaves(network.params)
    kernels = {name.rpartition("/")[0] for name in names if name.endswith("kernel")}
    shrunk = [
        shrink(leaf, g) if name.rpartition("/")[0] in kernels else leaf
        for name, leaf, g in zip(names, leaves, jax.tree.leaves(mean), strict=True)
    ]
    params = jax.tree.unflatten(jax.tree.structure(network.params), shrunk)
    return network._replace(params=params)


def plasticity_injection(network: Network, begun: Begun) -> Network:
    """Plasticity injection: Nikishin et al. 2023 (arXiv 2305.15555), in the modules named by `model.injected`.

    Their weights are then frozen, and new weights are trained in addition; see `models.injection`.  As in the
    paper this happens once; later stages change nothing.  The paper injects into all layers after the encoder.  In a
    linear head alone the effect would only be a new optimiser state.
    """
    params, stats = injection.inject(network.params, network.stats, begun.first)
    return network._replace(params=params, stats=stats)


STARTS: dict[str, Callable[..., Network] | Remedy] = {
    "fire": fire,
    "dash": dash,
    "plasticity_injection": plasticity_injection,
}
