"""The noise of minibatch gradients, from per-example gradients.

Cost: per-example gradients and their sums, as much as 5 gradients of the probe; memory of five times the parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Part, Subject, by_module, dot

Tree = Any


def noise(subject: Subject) -> dict[str, Array]:
    """Gradient noise; Sigma is the covariance of the gradients g_i of single examples, and G their mean.

    McCandlish et al. 2018, "An empirical model of large-batch training" (arXiv 1812.06162), section 2.2 and appendix A;
    all are scalars, those marked * for each top-level module too.

        noise_trace *        tr(Sigma), unbiased: sum_i |g_i - mean|^2 / (n - 1)
        gradient_square *    |G|^2, unbiased: |mean|^2 - tr(Sigma)/n; the estimate may be negative
        noise_scale *        tr(Sigma) / |G|^2: the simple noise scale, in images
        noise_of_update      rate tr(Sigma) / B for SGD with batches of B images
        gradient_cosine      the mean of cos(g_i, g_j) over i != j (Lyle et al. 2023, arXiv 2303.01486)
        readiness            |G|^2 / (|G|^2 + tr(Sigma)/B); a substitute for optimisation readiness (arXiv 2605.09044),
                             whose formula is not known to us
        old_gradient_norm, new_gradient_norm, gradient_norm_ratio
                             norm of the mean gradient over images trained on in earlier stages, over the others, and
                             the ratio of the two (Ash & Adams 2020, figure 5); NaN if there are no such images

    If the optimiser divides the gradient elementwise, as Adam does, also `preconditioned_noise_trace`*,
    `preconditioned_gradient_square`*, `preconditioned_noise_scale`* and `preconditioned_noise_of_update` of the divided
    gradients.  The divisor is the one expected for the next step: the root of the optimiser's second moment after a
    gradient whose square is G^2 + diag(Sigma)/B.  (At the start of a stage the second moment holds nothing else.)
    """
    sums, count = _sums(subject), subject.count
    mean = jax.tree.map(lambda total: total / count, sums["g"])
    # The noise is seldom much smaller than the mean, so float32 is precise enough for this difference.
    variance = jax.tree.map(
        lambda square, middle: jnp.maximum(square - count * jnp.square(middle), 0.0) / (count - 1),
        sums["squares"],
        mean,
    )
    scalars = _scales("", subject, mean, variance)
    if subject.scales:
        batch = jax.tree.map(lambda m, v: jnp.square(m) + v * (1 / subject.batch_size - 1 / count), mean, variance)
        scales = subject.scales(jax.tree.map(lambda square: jnp.maximum(square, 0.0), batch))
        divided = jax.tree.map(jnp.divide, mean, scales)
        scalars |= _scales(
            "preconditioned_", subject, divided, jax.tree.map(lambda v, s: v / jnp.square(s), variance, scales)
        )
    directions = dot(sums["direction"], sums["direction"])
    scalars["gradient_cosine"] = (directions - sums["directed"]) / (sums["directed"] * (sums["directed"] - 1))
    square, trace = scalars["gradient_square"], scalars["noise_trace"]
    scalars["readiness"] = square / (square + trace / subject.batch_size)
    return scalars | _halves(sums, count)


def _sums(subject: Subject) -> dict[str, Tree]:
    """Sums over the examples: gradients `g`, `old` (of images trained on before), `squares`, `direction` (g/|g|).

    Also the numbers of examples with a nonzero gradient, `directed`, and of old ones, `olds`.
    """
    zeros = jax.tree.map(jnp.zeros_like, subject.params)
    start = dict.fromkeys(("g", "old", "squares", "direction"), zeros) | {
        "directed": jnp.float32(0),
        "olds": jnp.float32(0),
    }

    def fold(carry: dict[str, Tree], gradients: Tree, part: Part) -> dict[str, Tree]:
        square = sum(jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(gradients))
        inverse = part.weight * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        old = part.weight * part.old

        def add(name: str, weight: Array, of: Tree) -> Tree:
            return jax.tree.map(lambda total, leaf: total + jnp.tensordot(weight, leaf, 1), carry[name], of)

        return {
            "g": add("g", part.weight, gradients),
            "old": add("old", old, gradients),
            "squares": add("squares", part.weight, jax.tree.map(jnp.square, gradients)),
            "direction": add("direction", inverse, gradients),
            "directed": carry["directed"] + jnp.sum(inverse > 0, dtype=jnp.float32),
            "olds": carry["olds"] + jnp.sum(old),
        }

    return subject.by_example(fold, start)


def _scales(prefix: str, subject: Subject, mean: Tree, variance: Tree) -> dict[str, Array]:
    scalars: dict[str, Array] = {}
    for end, part in by_module(mean).items():
        inside = part(mean)
        trace = sum((jnp.sum(leaf) for leaf in jax.tree.leaves(part(variance))), jnp.float32(0))
        square = dot(inside, inside) - trace / subject.count
        scalars |= {
            f"{prefix}noise_trace{end}": trace,
            f"{prefix}gradient_square{end}": square,
            f"{prefix}noise_scale{end}": trace / square,
        }
    return scalars | {f"{prefix}noise_of_update": subject.rate * scalars[f"{prefix}noise_trace"] / subject.batch_size}


def _halves(sums: dict[str, Tree], count: Array) -> dict[str, Array]:
    new = jax.tree.map(jnp.subtract, sums["g"], sums["old"])
    old_norm = jnp.sqrt(dot(sums["old"], sums["old"])) / sums["olds"]
    new_norm = jnp.sqrt(dot(new, new)) / (count - sums["olds"])
    both = (sums["olds"] > 0) & (sums["olds"] < count)
    norms = {"old_gradient_norm": old_norm, "new_gradient_norm": new_norm, "gradient_norm_ratio": old_norm / new_norm}
    return {name: jnp.where(both, value, jnp.nan) for name, value in norms.items()}
