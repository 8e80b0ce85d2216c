"""What an instrument measures: one network, and the images that it is measured on.

An instrument is a pure function `(subject) -> {name: float32 scalar}` of one run, which can be jitted.  It is dear, and
so measured only where a stage says so.  One that remembers something from one measurement to the next is a
`Remembering`, whose function returns the scalars and the new memory.

The network is in eval mode, in float32, and its BatchNorm has the statistics of the images that are measured, not the
running ones: those lag behind the weights, and at the first steps are those of initialisation.  So each example has a
loss of its own, and fresh networks can be compared with trained ones.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax import target

Tree = Any
PART = 128  # images that are looked at together, at most
EXAMPLES = 32  # of which so many have their own gradients at a time; on CPU one, which stays in the cache


class Part(NamedTuple):
    """Some images of the probe, or all of them: [B] each.

    index: of the image.  label: int32.  weight: 1, or 0 for what fills a part up.
    old: bool, whether the image was trained on in the stage before, by this run or by another branch of its seed.
    """

    index: Any
    label: Any
    weight: Any
    old: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network and what is known of it.

    params: parameters, float32.  probe: a `Part` with all images.
    losses: (parameters, part) -> loss of each example [B].  logits: (parameters, part) -> [B, K].
    of_logits: (logits [B, K], label [B]) -> loss of each example [B], which `losses` is made of.
    features: (parameters, part) -> the network's features {name: [B, .., D]}.
    key: random, of the seed, the stage's name and the step: the same for all branches.
    initial: the first parameters of the seed.
    parent: the parameters that the stage before left, before any reset; those of the seed where there is none.
    has_parent: bool, whether there is one.
    rate, batch_size: of the step to come; its learning rate has its schedule in it.
    scales: (second moment of the batch's gradient, like the parameters) -> what the optimiser divides each number of
        the gradient by; None for an optimiser that divides by nothing.
    at: (parameters) -> the same `Subject` with other parameters, and with the statistics that BatchNorm has for them.
    following: () -> a `Subject` after the step to come.
    memory: what a `Remembering` returned last.
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
        """How many images there are, float32."""
        return jnp.sum(jnp.asarray(self.probe.weight, jnp.float32))

    def size(self, most: int) -> int:
        """The largest size up to `most` of equal parts."""
        images = len(self.probe.label)
        return max(n for n in range(1, min(most, images) + 1) if images % n == 0)

    def over(self, fold: Callable[[Tree, Part], Tree], start: Tree, size: int = PART) -> Tree:
        """`carry = fold(carry, part)` over all images in equal parts of at most `size`, one after another."""
        parts = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, self.size(size), *leaf.shape[1:])), self.probe)
        return jax.lax.scan(lambda carry, part: (fold(carry, part), None), start, parts)[0]

    def mean(self, of: Callable[[Part], Tree], like: Tree) -> Tree:
        """The mean over images of `of(part)`, a sum over a part with the shapes of `like`."""
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
        """`carry = fold(carry, gradients, part)` with the gradients of the examples of each part, leaves [B, ...].

        They are those of other losses [B], where these are given.
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
    start: (parameters, probe) -> the memory before anything was measured.
    """

    measure: Callable[[Subject], tuple[dict[str, Array], Tree]]
    start: Callable[[Tree, Part], Tree]


def dot(a: Tree, b: Tree) -> Array:
    """The inner product of two trees, float32 scalar."""
    return sum((jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)), jnp.float32(0))


def by_module(params: Mapping[str, Tree]) -> dict[str, Callable[[Mapping[str, Tree]], Tree]]:
    """What takes a part out of a tree like the parameters, by what its metrics' names end in: all, and each module."""
    parts: dict[str, Callable[[Mapping[str, Tree]], Tree]] = {"": lambda tree: tree}
    return parts | {f"/{module}": lambda tree, module=module: tree[module] for module in params}
