"""The trace of the Fisher information matrix.

Cost: per-example gradients, as much as 2.5 gradients of the probe.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Part, Subject, by_module

Tree = Any


def fisher(subject: Subject) -> dict[str, Array]:
    """`fisher_trace`: the mean over images of E_y |grad log p(y|x)|^2, with y drawn from the network's prediction.

    Scalars, in total and for each top-level module.  One label is drawn per image, which makes the estimate unbiased.
    (The training labels would give the empirical Fisher, which vanishes once they are fitted.)  Achille et al. 2019,
    "Critical learning periods in deep networks" (arXiv 1711.08856), section 3.
    """

    def losses(params: Tree, part: Part) -> Array:
        logits = subject.logits(params, part)
        keys = jax.vmap(lambda index: jax.random.fold_in(subject.key, index))(part.index)
        drawn = jax.vmap(jax.random.categorical)(keys, jax.lax.stop_gradient(logits))
        return subject.of_logits(logits, drawn)

    def fold(carry: dict[str, Array], gradients: Tree, part: Part) -> dict[str, Array]:
        sums = {}
        for end, inside in by_module(subject.params).items():
            leaves = jax.tree.leaves(inside(gradients))
            squares = sum(jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in leaves)
            sums[end] = carry[end] + jnp.sum(part.weight * squares)
        return sums

    sums = subject.by_example(fold, dict.fromkeys(by_module(subject.params), jnp.float32(0)), losses)
    return {f"fisher_trace{end}": total / subject.count for end, total in sums.items()}
