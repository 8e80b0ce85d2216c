"""The argument of an instrument: one network, and the images that it is measured on.

An instrument is a pure function `(subject) -> {name: float32 scalar}` of one run, which can be jitted.  It is
expensive, so stages say when to measure it.  An instrument with a memory between measurements is a `Remembering`, whose
function returns the scalars and the new memory.

The network is in eval mode, in float32, and its BatchNorm uses the statistics of the measured images.  (The running
statistics lag behind the weights, and in the first steps are those of initialisation.)  The loss of an example
therefore depends on no other example, and fresh networks can be compared with trained ones.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from plasticity_jax import target

Tree = Any
PART = 128  # largest number of images processed at once
EXAMPLES = 32  # largest number of per-example gradients computed at once; on CPU 1, which stays in the cache


class Part(NamedTuple):
    """Some images of the probe, or all of them: [B] each.

    index: of the image in the data set.  label: int32.  weight: 1, or 0 for padding.
    old: bool, whether the image was trained on in the stage before, by this run or by another branch of its seed.
    """

    index: Any
    label: Any
    weight: Any
    old: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network and its context in training.

    params: parameters, float32.  probe: a `Part` with all images.
    losses: (parameters, part) -> loss of each example [B].  logits: (parameters, part) -> [B, K].
    of_logits: (logits [B, K], label [B]) -> loss of each example [B], used by `losses`.
    features: (parameters, part) -> the network's features {name: [B, .., D]}.
    key: random, from the seed, the stage's name and the step: equal for all branches.
    initial: the seed's initial parameters.
    parent: the parameters at the end of the stage before, before any reset; `initial` if there is none.
    has_parent: bool, whether there is a stage before.
    rate, batch_size: of the next step; the rate includes the schedule.
    scales: (second moment of the batch's gradient, like the parameters) -> the optimiser's elementwise divisor of the
        gradient; None for an optimiser without one.
    at: (parameters) -> the same `Subject` with other parameters, and BatchNorm's statistics for these.
    following: () -> a `Subject` after the next step.
    memory: as returned last by a `Remembering`.
    """

    params: Tree
    probe: Part
    losses: Callable[[Tree, Part], Array]
    logits: Callable[[Tree, Part], Array]
    of_logits: Callable[[Array, Array], Array]
    features: Callable[[Tree, Part], Mapping[str, Array]] = lambda params, part: {}
    key: Any = None
    initial: Tree = None
    parent: Tree = None
    has_parent: Any = False
    rate: Any = 0.0
    batch_size: int = 1
    scales: Callable[[Tree], Tree] | None = None
    at: Callable[[Tree], "Subject"] | None = None
    following: Callable[[], "Subject"] | None = None
    memory: Tree = ()

    @property
    def count(self) -> Array:
        """The number of images, float32."""
        return jnp.sum(jnp.asarray(self.probe.weight, jnp.float32))

    def size(self, most: int) -> int:
        """The largest divisor of the number of images that is at most `most`."""
        images = len(self.probe.label)
        return max(n for n in range(1, min(most, images) + 1) if images % n == 0)

    def over(self, fold: Callable[[Tree, Part], Tree], start: Tree, size: int = PART) -> Tree:
        """Folds `carry = fold(carry, part)` over all images, in equal parts of at most `size` images."""
        parts = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, self.size(size), *leaf.shape[1:])), self.probe)
        return jax.lax.scan(lambda carry, part: (fold(carry, part), None), start, parts)[0]

    def mean(self, of: Callable[[Part], Tree], like: Tree) -> Tree:
        """The mean over images; `of(part)` is the sum over a part, with the shapes of `like`."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), like)
        total = self.over(lambda carry, part: jax.tree.map(jnp.add, carry, of(part)), zeros)
        return jax.tree.map(lambda leaf: leaf / self.count, total)

    def part_loss(self, params: Tree, part: Part) -> Array:
        """The sum of the losses of a part."""
        return jnp.sum(part.weight * self.losses(params, part))

    def loss(self, params: Tree) -> Array:
        """The mean loss of all images."""
        return self.mean(lambda part: self.part_loss(params, part), 0.0)

    def slope(self, params: Tree) -> tuple[Array, Tree]:
        """`loss` and its gradient."""
        return self.mean(lambda part: jax.value_and_grad(self.part_loss)(params, part), (0.0, params))

    def gradient(self, params: Tree) -> Tree:
        """The gradient of `loss`."""
        return self.mean(lambda part: jax.grad(self.part_loss)(params, part), params)

    def hessian(self, params: Tree, vector: Tree) -> Tree:
        """The product of the Hessian of `loss` and a vector like the parameters."""

        def product(part: Part) -> Tree:
            slope = jax.grad(self.part_loss)
            return jax.jvp(lambda params: slope(params, part), (params,), (vector,))[1]

        return self.mean(product, params)

    def gauss_newton(self, params: Tree, vector: Tree) -> Tree:
        """The product of the Gauss-Newton matrix of `loss`, J^T H J with J of the logits, and a vector.

        For cross-entropy H is diag(p) - p p^T, and this is the Fisher matrix too (Martens 2014, section 9.2).
        """

        def product(part: Part) -> Tree:
            logits, moved = jax.jvp(lambda params: self.logits(params, part), (params,), (vector,))

            def slope(logits: Array) -> Array:
                return jax.grad(lambda z: jnp.sum(part.weight * self.of_logits(z, part.label)))(logits)

            curved = jax.jvp(slope, (logits,), (moved,))[1]
            return jax.vjp(lambda params: self.logits(params, part), params)[1](curved)[0]

        return self.mean(product, params)

    def by_example(
        self,
        fold: Callable[[Tree, Tree, Part], Tree],
        start: Tree,
        losses: Callable[[Tree, Part], Array] | None = None,
    ) -> Tree:
        """Folds `carry = fold(carry, gradients, part)` over parts, with per-example gradients, leaves [B, ...].

        `losses`, (parameters, part) -> [B], replaces the loss whose gradients are taken.
        """
        chosen = losses or self.losses

        def one(part: Part) -> Tree:
            alone = jax.tree.map(lambda leaf: leaf[None], part)
            return jax.grad(lambda params: chosen(params, alone)[0])(self.params)

        size = 1 if target.backend() == "cpu" else EXAMPLES
        return self.over(lambda carry, part: fold(carry, jax.vmap(one)(part), part), start, size)


class Remembering(NamedTuple):
    """An instrument with a memory.

    measure: (subject) -> ({name: float32 scalar}, memory).
    start: (parameters, probe) -> the memory before the first measurement.
    """

    measure: Callable[[Subject], tuple[dict[str, Array], Tree]]
    start: Callable[[Tree, Part], Tree]


def dot(a: Tree, b: Tree) -> Array:
    """The inner product of two trees, float32 scalar."""
    return sum((jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)), jnp.float32(0))


def size(tree: Tree) -> int:
    """The total number of elements of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def draw(of: Callable[[Array, tuple[int]], Array], key: Array, like: Tree) -> Tree:
    """A random tree with the shapes of `like`; `of(key, shape)` draws all its elements at once.

    XLA compiles a generator for every draw: one for each leaf of a ResNet-18 doubles the time to compile an instrument.
    """
    return ravel_pytree(like)[1](of(key, (size(like),)))


def by_module(params: Mapping[str, Tree]) -> dict[str, Callable[[Mapping[str, Tree]], Tree]]:
    """Selectors of parts of a tree like the parameters, by suffix of metric names: "" for all, "/MODULE" for one."""
    parts: dict[str, Callable[[Mapping[str, Tree]], Tree]] = {"": lambda tree: tree}
    return parts | {f"/{module}": lambda tree, module=module: tree[module] for module in params}
