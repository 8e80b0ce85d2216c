"""Where a network is: beside its first weights, beside what it was pretrained to, and on the line between.

Cost class: `correlation` looks at the weights alone, `similarity` takes two passes forward over 256 images, and `path`
11 passes forward over the probe.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Subject, by_module

Tree = Any
INPUTS = 256  # images that features are compared on
POINTS = 11  # on a line, both ends among them


def correlation(subject: Subject) -> dict[str, Array]:
    """Pearson's correlation of the weights with the first ones of the seed, and with those that the stage before left.

    `correlation_to_init` and `correlation_to_parent`, in total and for each top-level module; the second is NaN for a
    run without a stage before (Ash & Adams 2020, appendix, figure 11).
    """
    found: dict[str, Array] = {}
    for name, other in (("init", subject.initial), ("parent", _parent(subject))):
        for end, part in by_module(subject.params).items():
            found[f"correlation_to_{name}{end}"] = pearson(part(subject.params), part(other))
    return found


def similarity(subject: Subject) -> dict[str, Array]:
    """`cka_to_parent/FEATURE`: linear CKA of each of the network's features with those that the stage before left.

    Of the first 256 images of the probe; NaN for a run without a stage before.  Kornblith et al. 2019, "Similarity of
    neural network representations revisited" (arXiv 1905.00414), equation 4.
    """
    some = jax.tree.map(lambda leaf: leaf[:INPUTS], subject.probe)
    before = subject.at(_parent(subject)) if subject.at else subject
    now, then = subject.features(subject.params, some), before.features(before.params, some)
    return {f"cka_to_parent/{name}": cka(now[name], then[name], some.weight) for name in now}


def path(subject: Subject) -> dict[str, Array]:
    """The mean loss on the straight line from the network that the stage before left to this one.

    At each of 11 points BatchNorm has the statistics of the weights there.  NaN for a run without a stage before.

        path_loss/0 .. 10   from the network before to this one
        path_barrier        the most that it lies above the line between the losses of the ends (Frankle et al. 2020,
                            "Linear mode connectivity", arXiv 1912.05671, section 2)
    """
    losses = line(subject, _parent(subject), subject.params, POINTS)
    return {f"path_loss/{i}": losses[i] for i in range(POINTS)} | {"path_barrier": barrier(losses)}


def line(subject: Subject, start: Tree, end: Tree, points: int) -> Array:
    """The mean loss [points] on the line between two trees of parameters, with statistics that belong to each point."""

    def loss(share: Array) -> Array:
        here = jax.tree.map(lambda a, b: (1 - share) * a + share * b, start, end)
        return (subject.at(here) if subject.at else subject).loss(here)

    return jax.lax.map(loss, jnp.linspace(0.0, 1.0, points))


def barrier(losses: Array) -> Array:
    """The most that losses [P], at equal distances on a line, lie above the line between the first and the last."""
    shares = jnp.linspace(0.0, 1.0, len(losses))
    return jnp.max(losses - ((1 - shares) * losses[0] + shares * losses[-1]))


def pearson(a: Tree, b: Tree) -> Array:
    """The correlation of two trees, float32 scalar; NaN where one of them is constant."""
    x, y = (jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    return jnp.vdot(x, y) / jnp.sqrt(jnp.vdot(x, x) * jnp.vdot(y, y))


def cka(a: Array, b: Array, weight: Array) -> Array:
    """Linear centred kernel alignment of features [B, ..] and [B, ..]; an example of weight 0 is left out."""
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
