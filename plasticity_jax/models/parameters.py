"""Pytrees of arrays as named leaves, such as `module2/block0/conv1/kernel`: selection, checksums, norms."""

import difflib
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plasticity_jax.errors import ConfigError

ALL = "all"


def paths(tree: Any) -> dict[str, Any]:
    """The leaves by name, in the order of `jax.tree.leaves`; the keys of a path are joined by `/`."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def select(tree: Any, patterns: Sequence[str]) -> Any:
    """Marks the leaves that the patterns match.

    A pattern matches the leaf at that path and all leaves below it (`module2` or `module2/block0`, but not `module`);
    `all` matches every leaf.

    Returns:
      The tree with a bool for each leaf.

    Raises:
      ConfigError: a pattern other than `all` matches no leaf.
    """
    names = list(paths(tree))
    for pattern in patterns:
        if pattern != ALL and not any(_matches(name, pattern) for name in names):
            raise ConfigError(f"{pattern!r} names no parameter; {_choices(names, pattern)}")
    chosen = [any(_matches(name, pattern) for pattern in patterns) for name in names]
    return jax.tree.unflatten(jax.tree.structure(tree), chosen)


def _matches(name: str, pattern: str) -> bool:
    return pattern == ALL or name == pattern or name.startswith(pattern + "/")


def _choices(names: Sequence[str], pattern: str) -> str:
    prefixes = {
        "/".join(parts[: i + 1]): None for parts in (name.split("/") for name in names) for i in range(len(parts))
    }
    near = difflib.get_close_matches(pattern, prefixes, n=3)
    top = list(dict.fromkeys(name.split("/")[0] for name in names))
    return f"did you mean one of {near}?" if near else f"choose one of {[ALL, *top]} or a path below them"


def sha256(tree: Any) -> str:
    """SHA-256 (hex) of all names, dtypes, shapes and bits, independent of the order of dictionaries."""
    digest = hashlib.sha256()
    for name, leaf in sorted(paths(tree).items()):
        array = np.asarray(leaf)
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def crc32(leaf: Any) -> int:
    """CRC-32 of the bits of one array."""
    return zlib.crc32(np.asarray(leaf).tobytes())


def norm(tree: Any) -> Array:
    """The L2 norm of all leaves together, float32 scalar; 0 for a tree without leaves."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.zeros((), jnp.float32)
