"""Converts configs to nested dicts of plain Python values, and finds the key closest to a misspelt path."""

import difflib
import numbers
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from plasticity_jax.errors import ConfigError


def plain(config: Any, where: str = "config") -> dict[str, Any]:
    """Converts nested ConfigDicts to nested dicts, keeping their order.

    Raises:
      ConfigError: `config` is not a mapping, or a placeholder was not filled.
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
    """`value` with numpy and jax scalars as Python scalars and arrays as tuples, at any depth."""
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
        return float(str(scalar))  # 0.1 for float32(0.1), not 0.10000000149
    return scalar.item() if isinstance(scalar, np.generic) else scalar


def has(path: str, values: Mapping[str, Any]) -> bool:
    """Whether a key or group exists at a dotted path, which may be written like `branches["a+b"].after`."""
    return re.sub(r"""\[["']?(.*?)["']?\]""", r".\1", path) in dict(paths(values))


def nearest(path: str, values: Mapping[str, Any]) -> str:
    """The dotted path in `values` most similar to `path`; the last key counts most."""

    def score(candidate: str) -> float:
        ends = path.rpartition(".")[2], candidate.rpartition(".")[2]
        return likeness(*ends) + likeness(path, candidate)

    return max((path for path, _ in paths(values)), key=score, default="")


def likeness(a: str, b: str) -> float:
    """Similarity of two strings, in [0, 1]."""
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, value) for every key and group in `values`."""
    for key, value in values.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{key}.")
