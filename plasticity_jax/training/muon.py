"""Muon, from optax, with moments as full trees so that resets can address them."""

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from plasticity_jax.config.optim import Optim
from plasticity_jax.training.hyper import ArrayLike, Hyper

Tree = Any
Rule: TypeAlias = optax.GradientTransformation


def muon(optim: Optim, h: Hyper, learning_rate: ArrayLike) -> Rule:
    """`optax.contrib.muon` on all kernels except the head's, AdamW on the rest; weight decay is decoupled.

    A convolution is a matrix [height x width x inputs, outputs].  Updates are scaled to a root mean square of 0.2, so
    one learning rate suits both.  The moments are trees of all parameters, zero where unused, so that resets apply to
    them.
    """
    decay = h.weight_decay if optim.decayed == "all" else 0.0
    shapes = optax.contrib.MuonDimensionNumbers

    def numbers(params: Tree) -> Tree:
        def one(path: Any, leaf: jax.Array) -> Any:
            hidden = leaf.ndim > 1 and getattr(path[0], "key", "") != "head"
            return shapes(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if hidden else None

        return jax.tree.map_with_path(one, params)

    rule = optax.contrib.muon(
        learning_rate,
        beta=h.momentum,
        weight_decay=decay,
        adam_b1=h.b1,
        adam_b2=h.b2,
        adam_weight_decay=decay,
        muon_weight_dimension_numbers=numbers,
        consistent_rms=0.2,
    )
    whole = _whole(rule)
    if optim.decayed == "all":
        return whole

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        updates, state = whole.update(updates, state, params)
        less = learning_rate * h.weight_decay
        return jax.tree.map(lambda u, p: u - less * p if p.ndim > 1 else u, updates, params), state

    return whole._replace(update=update)


def _whole(rule: Rule) -> Rule:
    """A rule for parts of the parameters, with a state of trees of all parameters, zero outside the parts."""

    def init(params: Tree) -> Tree:
        return _fill(rule.init(params), params)

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        masks = jax.eval_shape(rule.init, params)
        structure: Any = jax.tree.structure(params)
        full = jax.tree.leaves(state, is_leaf=lambda part: structure == jax.tree.structure(part))
        parts, holes = jax.tree.flatten(masks, is_leaf=functools.partial(_is_part, params))
        parts = [_empty(mask, part, params) for mask, part in zip(parts, full, strict=True)]
        updates, state = rule.update(updates, jax.tree.unflatten(holes, parts), params)
        return updates, _fill(state, params)

    return optax.GradientTransformation(init, update)


def _is_part(params: Tree, part: Tree) -> bool:
    """Whether `part` is a tree like the parameters, except for masked leaves."""
    whole: Any = jax.tree.structure(params)
    return whole == jax.tree.structure(part, is_leaf=_is_hole)


def _is_hole(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)


def _fill(state: Tree, params: Tree) -> Tree:
    def one(part: Tree) -> Tree:
        if not _is_part(params, part):
            return part
        return jax.tree.map(
            lambda leaf, like: jnp.zeros_like(like) if _is_hole(leaf) else leaf, part, params, is_leaf=_is_hole
        )

    return jax.tree.map(one, state, is_leaf=functools.partial(_is_part, params))


def _empty(mask: Tree, part: Tree, params: Tree) -> Tree:
    if not _is_part(params, mask):
        return part
    return jax.tree.map(lambda hole, leaf: hole if _is_hole(hole) else leaf, mask, part, is_leaf=_is_hole)
