"""Configs as nested dicts of plain Python values, and the search for the key that a misspelt path meant."""

import difflib
import numbers
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from plasticity_jax.errors import ConfigError


def plain(config: Any, where: str = "config") -> dict[str, Any]:
    """Nested dicts for nested ConfigDicts, in their order.

    Raises:
      ConfigError: no mapping at all, or a placeholder that was left empty.
    """
    if not isinstance(config, (ConfigDict, Mapping)):
        raise ConfigError(f"{where}={config!r}: must be a ConfigDict")
    result = {}
    for key in config:
        try:
            value = config[key]
        except config_dict.RequiredValueError as empty:
            raise ConfigError(f"{where}.{key}: must be given") from empty
        nested = isinstance(value, (ConfigDict, Mapping)) and key != "grid"
        result[str(key)] = plain(value, f"{where}.{key}") if nested else _python(value)
    return result


def _python(value: Any) -> Any:
    """Scalars of numpy and jax as Python's, and their arrays as tuples, wherever they are in `value`."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {_python(key): _python(value[key]) for key in value}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_python, value)) if type(value) in (tuple, list) else tuple(map(_python, value))
    if not hasattr(value, "__array__"):
        return (
            float(value) if isinstance(value, numbers.Rational) and not isinstance(value, numbers.Integral) else value
        )
    array = np.asarray(value)
    if array.ndim:
        return tuple(map(_python, array))
    scalar = array[()]
    if isinstance(scalar, np.floating):
        return float(str(scalar))  # float32(0.1) is meant to be 0.1, not 0.10000000149
    return scalar.item() if isinstance(scalar, np.generic) else scalar


def has(path: str, values: Mapping[str, Any]) -> bool:
    """Whether there is a key or group at a dotted path, also written like `branches["a+b"].after`."""
    return re.sub(r"""\[["']?(.*?)["']?\]""", r".\1", path) in dict(paths(values))


def nearest(path: str, values: Mapping[str, Any]) -> str:
    """The dotted path in `values` that `path` was most likely meant to be, judged by its last key first."""

    def score(candidate: str) -> float:
        ends = path.rpartition(".")[2], candidate.rpartition(".")[2]
        return likeness(*ends) + likeness(path, candidate)

    return max((path for path, _ in paths(values)), key=score, default="")


def likeness(a: str, b: str) -> float:
    """How alike two words are, in [0, 1]."""
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key and group below `values`, as (dotted path, value)."""
    for key, value in values.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{key}.")
