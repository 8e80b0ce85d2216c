"""The curvature of the loss: eigenvalues, trace, rank and spectrum of its Hessian and of its Gauss-Newton matrix.

Cost: matrix-vector products, each about two gradients of the whole probe: 96 for `curvature`, 160 for `spectrum`;
memory of two parameter vectors per Lanczos step.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from plasticity_jax.diagnostics.lanczos import Product, Ritz, lanczos, signs
from plasticity_jax.diagnostics.subject import Subject, dot, size

Tree = Any
DEPTH = 24  # steps of Lanczos from each of two random vectors
TOP = 10  # eigenvalues that are reported
EPSILON = 0.01  # eigenvalues below this fraction of the largest count as zero in the rank
NODES, VECTORS = 40, 2  # of the spectrum: Lanczos steps per random vector, and random vectors


def curvature(subject: Subject) -> dict[str, Array]:
    """The large eigenvalues of the Hessian and the Gauss-Newton matrix of the mean loss; all are scalars.

        hessian_eigenvalue/1 .. 10   the largest, by 24 steps of Lanczos from two random vectors: outliers are exact,
                                     the tenth is a lower bound
        hessian_smallest             the smallest, i.e. the strongest negative curvature
        hessian_trace                exact in the Krylov space of one vector, and outside it estimated by Hutchinson's
                                     method with the other vector (Meyer et al. 2021, "Hutch++", arXiv 2010.09649)
        hessian_rank                 number of eigenvalues above 0.01 of the largest, by quadrature; reported to
                                     collapse before a new task is learned badly (arXiv 2509.22335)
        relative_sharpness           the largest times |w|^2, which does not depend on the scale of the weights where
                                     BatchNorm makes it arbitrary

    The same except the last as `gauss_newton_..`, whose eigenvalues are also those of the Fisher matrix.
    """
    scalars: dict[str, Array] = {}
    for name, product in _matrices(subject):
        both = _from_signs(product, subject, DEPTH)
        largest = jnp.max(both.values, 0)[::-1]
        scalars |= {f"{name}_eigenvalue/{i + 1}": largest[i] for i in range(min(TOP, len(largest)))}
        above = jnp.where(both.values > EPSILON * largest[0], both.weights, 0.0)
        scalars[f"{name}_smallest"] = jnp.min(both.values)
        scalars[f"{name}_rank"] = size(subject.params) * jnp.sum(above) / VECTORS
        scalars[f"{name}_trace"] = jnp.mean(jnp.stack([_trace(both, i, 1 - i, subject) for i in (0, 1)]))
    norm = dot(subject.params, subject.params)
    return scalars | {"relative_sharpness": scalars["hessian_eigenvalue/1"] * norm}


def spectrum(subject: Subject) -> dict[str, Array]:
    """The density of all eigenvalues, by stochastic Lanczos quadrature (Ghorbani et al. 2019, arXiv 1901.10159).

    `hessian_node/J` and `hessian_weight/J` (J from 0 to 79) are quadrature nodes on the axis of eigenvalues, and the
    fraction of all eigenvalues near each: the density is the sum over J of weight times a narrow kernel at the node.
    Two random vectors, 40 steps each.  The same as `gauss_newton_..`.
    """
    scalars: dict[str, Array] = {}
    for name, product in _matrices(subject):
        ritz = _from_signs(product, subject, NODES)
        pairs = zip(ritz.values.ravel(), ritz.weights.ravel() / VECTORS, strict=True)
        for j, (value, weight) in enumerate(pairs):
            scalars |= {f"{name}_node/{j}": value, f"{name}_weight/{j}": weight}
    return scalars


def _from_signs(product: Product, subject: Subject, depth: int) -> Ritz:
    """`lanczos` from each random vector, leaves [2, ...]; one after another."""
    return jax.lax.map(lambda number: lanczos(product, _start(subject, number), depth), jnp.arange(VECTORS))


def _start(subject: Subject, number: Array | int) -> Tree:
    return signs(jax.random.fold_in(subject.key, number), subject.params)


def _trace(both: Ritz, deflating: int, other: int, subject: Subject) -> Array:
    """The trace: exact in the Krylov space of start `deflating`, plus Hutchinson's estimate outside it from `other`.

    The product of the matrix with a start lies in that start's Krylov space, so it needs no further product.
    """
    inside, outside = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (deflating, other))
    vector = ravel_pytree(_start(subject, other))[0]
    image = (outside.vectors @ vector * outside.values) @ outside.vectors
    shadow, lit = inside.vectors @ vector, inside.vectors @ image
    beside = jnp.dot(vector, image) - 2 * jnp.dot(shadow, lit) + jnp.sum(inside.values * jnp.square(shadow))
    return jnp.sum(inside.values) + beside


def _matrices(subject: Subject) -> Iterator[tuple[str, Product]]:
    kinds: dict[str, Callable[[Tree, Tree], Tree]] = {
        "hessian": subject.hessian,
        "gauss_newton": subject.gauss_newton,
    }
    for name, product in kinds.items():
        yield name, functools.partial(product, subject.params)
