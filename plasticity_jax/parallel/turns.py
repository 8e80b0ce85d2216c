"""Processes runs one after another on a device, updating their states in place to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def in_place(fn: Callable[[tuple[Tree, Tree]], Tree], rows: tuple[Tree, Tree]) -> Tree:
    """`jax.lax.map` whose output states reuse the memory of the input states.

    Args:
      fn: function of (state, row) that returns a state like its argument, or (state, other).
      rows: states and rows, leaves [R, ...].
    """
    states, given = rows
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    made = jax.eval_shape(fn, one)
    structure: Any = jax.tree.structure(states)
    whole = structure == jax.tree.structure(made)

    def body(number: jax.Array, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        result = fn(jax.tree.map(lambda leaf: leaf[number], (carry[0], given)))
        return jax.tree.map(lambda leaf, new: leaf.at[number].set(new), carry, (result, ()) if whole else result)

    count = len(jax.tree.leaves(rows)[0])
    others = () if whole else jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), made[1])
    after = jax.lax.fori_loop(0, count, body, (states, others))
    return after[0] if whole else after


def at_row(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """A function (states, row, number, *shared) that replaces state `number` by `fn(state, row[0], *shared)`."""

    def over(states: Tree, row: Tree, number: jax.Array, *shared: Tree) -> Tree:
        new = fn(jax.tree.map(lambda leaf: leaf[number], states), jax.tree.map(lambda leaf: leaf[0], row), *shared)
        return jax.tree.map(lambda leaf, new: leaf.at[number].set(new), states, new)

    return over
