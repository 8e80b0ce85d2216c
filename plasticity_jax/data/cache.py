"""Decoded data sets on disk: one file for each set and place, replaced as a whole.

What is stored counts as long as the prepared files stay the same; whatever is wrong with it, the data are read afresh.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from plasticity_jax.data.contents import ARRAYS, digest

Made = tuple[dict[str, np.ndarray], int, tuple[str, ...]]  # the arrays, how many classes, and notes
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file, and what has to be written in it: what the data were made of."""

    path: pathlib.Path
    fingerprint: str


def entry(name: str, version: str, source: Any) -> Entry:
    """Where a set is stored; `source` is where the data lie and how it looks there, or what made them."""
    fingerprint = json.dumps([FORMAT, name, version, source], allow_nan=False)
    place = source[0] if isinstance(source, list) else ""
    key = hashlib.sha256(json.dumps([name, version, place], allow_nan=False).encode()).hexdigest()[:16]
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "plasticity_jax" / "datasets"
    return Entry(folder / f"{name.replace('/', '-')}-{version}-{key}.npz", fingerprint)


def read(where: Entry) -> Made | None:
    """What is stored, if it is whole and was made of the same."""
    with contextlib.suppress(Exception):  # absent, cut short, of another numpy, not readable: all the same
        with open(where.path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ARRAYS}
            if stored["fingerprint"].item() == where.fingerprint and stored["sha256"].item() == digest(arrays):
                return arrays, int(stored["classes"]), tuple(stored["notes"].tolist())
    return None


def write(where: Entry, arrays: Mapping[str, np.ndarray], sha256: str, classes: int, notes: tuple[str, ...]) -> None:
    """Store a set, if the directory can be written."""
    described: dict[str, Any] = {"classes": classes, "notes": np.asarray(notes, str), **arrays}
    with contextlib.suppress(OSError):
        where.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=where.path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as new:
                np.savez(new, fingerprint=where.fingerprint, sha256=sha256, **described)
            os.replace(temporary, where.path)
        finally:
            pathlib.Path(temporary).unlink(missing_ok=True)
