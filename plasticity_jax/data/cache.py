"""A cache of decoded data sets on disk: one file for each set and location, replaced atomically.

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

from plasticity_jax.data.contents import ARRAYS, Facts, digest

Made = tuple[dict[str, Any], int, tuple[str, ...]]  # the arrays, number of classes, and notes
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file, and the description of the data's source that it must contain."""

    path: pathlib.Path
    fingerprint: str


def entry(name: str, version: str, source: Any, small: bool = False) -> Entry:
    """The entry of a data set; `source` describes the files or the code from which it was made.

    With `small` there is one entry per source instead of one per location.
    """
    fingerprint = json.dumps([FORMAT, name, version, source], allow_nan=False)
    place = source if small else source[0] if isinstance(source, list) else ""
    key = hashlib.sha256(json.dumps([name, version, place], allow_nan=False).encode()).hexdigest()[:16]
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "plasticity_jax" / "datasets"
    return Entry(folder / f"{name.replace('/', '-')}-{version}-{key}.npz", fingerprint)


def read(where: Entry) -> Made | None:
    """The stored data set, if it is complete and its source is the same."""
    stored = _read(where)
    with contextlib.suppress(Exception):  # as there
        arrays = {key: stored[key] for key in ARRAYS} if stored else {}
        if stored and stored["sha256"].item() == digest(arrays):
            return arrays, int(stored["classes"]), tuple(stored["notes"].tolist())
    return None


def write(where: Entry, arrays: Mapping[str, np.ndarray], sha256: str, classes: int, notes: tuple[str, ...]) -> None:
    """Stores a data set, if the directory can be written."""
    _write(where, {"sha256": sha256, "classes": classes, "notes": np.asarray(notes, str), **arrays})


def facts(where: Entry) -> tuple[dict[str, np.ndarray], Facts] | None:
    """The labels and facts of a set whose images stay elsewhere, if its source is the same."""
    stored = _read(where)
    with contextlib.suppress(Exception):  # as there
        if stored:
            labels = {key: stored[key] for key in ARRAYS if key.endswith("labels")}
            mean, std = (tuple(stored[key].tolist()) for key in ("mean", "std"))
            return labels, (mean, std, stored["sha256"].item())
    return None


def write_facts(where: Entry, labels: Mapping[str, np.ndarray], known: Facts) -> None:
    """Stores labels and facts, if the directory can be written."""
    mean, std, sha256 = known
    _write(where, {"mean": np.asarray(mean), "std": np.asarray(std), "sha256": sha256, **labels})


def _read(where: Entry) -> dict[str, np.ndarray] | None:
    with contextlib.suppress(Exception):  # absent, cut short, of another numpy, not readable: all the same
        with open(where.path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if stored["fingerprint"].item() == where.fingerprint:
                return dict(stored)
    return None


def _write(where: Entry, described: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        where.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=where.path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as new:
                np.savez(new, fingerprint=where.fingerprint, **described)
            os.replace(temporary, where.path)
        finally:
            pathlib.Path(temporary).unlink(missing_ok=True)
