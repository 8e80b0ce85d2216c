"""Runs that take turns on a device, with their states in place: nothing of the size of all states is there twice."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def in_place(fn: Callable[[tuple[Tree, Tree]], Tree], rows: tuple[Tree, Tree]) -> Tree:
    """`jax.lax.map` where the states that come out take the places of those that went in.

    Args:
      fn: of a state and a row; returns a state like its own, alone or with something else: (state, other).
      rows: states and rows, leaves [R, ...].
    """
    states, given = rows
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    made = jax.eval_shape(fn, one)
    structure: Any = jax.tree.structure(states)
    whole = structure == jax.tree.structure(made)

    def body(number: jax.Array, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        found = fn(jax.tree.map(lambda leaf: leaf[number], (carry[0], given)))
        return jax.tree.map(lambda leaf, new: leaf.at[number].set(new), carry, (found, ()) if whole else found)

    count = len(jax.tree.leaves(rows)[0])
    others = () if whole else jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), made[1])
    found = jax.lax.fori_loop(0, count, body, (states, others))
    return found[0] if whole else found


def at_row(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """`(states, row, number, *shared)`: the states [R, ...], that at `number` being `fn(state, row[0], *shared)`."""

    def over(states: Tree, row: Tree, number: jax.Array, *shared: Tree) -> Tree:
        new = fn(jax.tree.map(lambda leaf: leaf[number], states), jax.tree.map(lambda leaf: leaf[0], row), *shared)
        return jax.tree.map(lambda leaf, new: leaf.at[number].set(new), states, new)

    return over
