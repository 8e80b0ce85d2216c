"""The trace of the Fisher information matrix.

Cost class: one gradient of each example by itself, about three passes over the probe.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Part, Subject, by_module

Tree = Any


def fisher(subject: Subject) -> dict[str, Array]:
    """`fisher_trace`: the mean over images of E_y |grad log p(y|x)|^2, the label y being drawn from the network itself.

    In total and for each top-level module; scalars.  One label is drawn for each image, so that it is unbiased.  (With
    the labels that are trained on it would be the empirical Fisher, which vanishes where they are fitted.)  Achille et
    al. 2019, "Critical learning periods in deep networks" (arXiv 1711.08856), section 3.
    """

    def losses(params: Tree, part: Part) -> Array:
        logits = subject.logits(params, part)
        keys = jax.vmap(lambda index: jax.random.fold_in(subject.key, index))(part.index)
        drawn = jax.vmap(jax.random.categorical)(keys, jax.lax.stop_gradient(logits))
        return subject.of_logits(logits, drawn)

    def fold(carry: dict[str, Array], gradients: Tree, part: Part) -> dict[str, Array]:
        found = {}
        for end, inside in by_module(subject.params).items():
            leaves = jax.tree.leaves(inside(gradients))
            squares = sum(jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in leaves)
            found[end] = carry[end] + jnp.sum(part.weight * squares)
        return found

    sums = subject.by_example(fold, dict.fromkeys(by_module(subject.params), jnp.float32(0)), losses)
    return {f"fisher_trace{end}": total / subject.count for end, total in sums.items()}
