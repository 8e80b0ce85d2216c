"""Comparison of a network with its initial weights and with the network that the stage before left.

Cost: `correlation` uses the weights alone, `similarity` two forward passes over 256 images, and `path` 11 forward
passes over the probe.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Subject, by_module

Tree = Any
INPUTS = 256  # images for the comparison of features
POINTS = 11  # on a line, including both ends


def correlation(subject: Subject) -> dict[str, Array]:
    """Pearson's correlation of the weights with the seed's initial ones, and with those at the end of the stage before.

    `correlation_to_init` and `correlation_to_parent`, in total and for each top-level module; the second is NaN for a
    run without a stage before (Ash & Adams 2020, appendix, figure 11).
    """
    scalars: dict[str, Array] = {}
    for name, other in (("init", subject.initial), ("parent", _parent(subject))):
        for end, part in by_module(subject.params).items():
            scalars[f"correlation_to_{name}{end}"] = pearson(part(subject.params), part(other))
    return scalars


def similarity(subject: Subject) -> dict[str, Array]:
    """`cka_to_parent/FEATURE`: linear CKA of each of the network's features with those at the end of the stage before.

    Of the first 256 images of the probe; NaN for a run without a stage before.  Kornblith et al. 2019, "Similarity of
    neural network representations revisited" (arXiv 1905.00414), equation 4.
    """
    some = jax.tree.map(lambda leaf: leaf[:INPUTS], subject.probe)
    before = subject.at(_parent(subject)) if subject.at else subject
    now, then = subject.features(subject.params, some), before.features(before.params, some)
    return {f"cka_to_parent/{name}": cka(now[name], then[name], some.weight) for name in now}


def path(subject: Subject) -> dict[str, Array]:
    """The mean loss on the straight line from the network at the end of the stage before to this one.

    BatchNorm's statistics are recomputed at each of 11 points.  NaN for a run without a stage before.

        path_loss/0 .. 10   from the network before to this one
        path_barrier        the largest height above the linear interpolation of the losses of the ends (Frankle et al.
                            2020, "Linear mode connectivity", arXiv 1912.05671, section 2)
    """
    losses = line(subject, _parent(subject), subject.params, POINTS)
    return {f"path_loss/{i}": losses[i] for i in range(POINTS)} | {"path_barrier": barrier(losses)}


def line(subject: Subject, start: Tree, end: Tree, points: int) -> Array:
    """The mean loss [points] on the line between two trees of parameters, with BatchNorm's statistics of each point."""

    def loss(share: Array) -> Array:
        here = jax.tree.map(lambda a, b: (1 - share) * a + share * b, start, end)
        return (subject.at(here) if subject.at else subject).loss(here)

    return jax.lax.map(loss, jnp.linspace(0.0, 1.0, points))


def barrier(losses: Array) -> Array:
    """The largest height of losses [P], at equal distances, above the line from the first to the last."""
    shares = jnp.linspace(0.0, 1.0, len(losses))
    return jnp.max(losses - ((1 - shares) * losses[0] + shares * losses[-1]))


def pearson(a: Tree, b: Tree) -> Array:
    """The correlation of two trees, float32 scalar; NaN where one of them is constant."""
    x, y = (jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    return jnp.vdot(x, y) / jnp.sqrt(jnp.vdot(x, x) * jnp.vdot(y, y))


def cka(a: Array, b: Array, weight: Array) -> Array:
    """Linear centred kernel alignment of features [B, ..] and [B, ..]; examples of weight 0 are left out."""
    weight = jnp.asarray(weight, jnp.float32)

    def kernel(features: Array) -> Array:
        flat = jnp.reshape(features, (len(features), -1)).astype(jnp.float32)
        flat = flat - weight @ flat / jnp.sum(weight)
        flat = flat * weight[:, None]
        return flat @ flat.T

    x, y = kernel(a), kernel(b)
    return jnp.vdot(x, y) / jnp.sqrt(jnp.vdot(x, x) * jnp.vdot(y, y))


def _parent(subject: Subject) -> Tree:
    return jax.tree.map(lambda leaf: jnp.where(subject.has_parent, leaf, jnp.nan), subject.parent)
