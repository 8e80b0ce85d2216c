"""Checks of config values, each with the dotted path that an error names, and the search for what a path meant.

A check takes (value, path) and returns the value as a dataclass holds it, or raises a `ConfigError` of one line.
"""

import difflib
import numbers
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from plasticity_jax.errors import ConfigError

Check = Callable[[Any, str], Any]

LARGEST = 2**31 - 1  # steps, seeds and indices are int32 on the device


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

    def likeness(candidate: str) -> float:
        ends = path.rpartition(".")[2], candidate.rpartition(".")[2]
        return _likeness(*ends) + _likeness(path, candidate)

    return max((path for path, _ in paths(values)), key=likeness, default="")


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key and group below `values`, as (dotted path, value)."""
    for key, value in values.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{key}.")


def error(where: str, value: Any, need: str) -> ConfigError:
    """The error that names a value, its path, and what it has to be."""
    return ConfigError(f"{where}={value!r}: {need}")


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # True is an int to Python


def whole(low: int) -> Check:
    """A whole number from `low` on."""

    def check(value: Any, where: str) -> int:
        if not _is(numbers.Integral, value):
            raise error(where, value, f"must be a whole number, at least {low}")
        if not low <= value <= LARGEST:
            raise error(where, value, f"must be at least {low}" if value < low else f"must be at most {LARGEST}")
        return int(value)

    return check


def real(interval: str) -> Check:
    """A finite number in an interval written like `(0, 1]`."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def check(value: Any, where: str) -> float:
        if not _is(numbers.Real, value):
            raise error(where, value, f"must be a number in {interval}")
        above = low < value or (interval[0] == "[" and value == low)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below and abs(value) < 1e300):  # inf is no number here, and ints have no largest
            raise error(where, value, f"must be in {interval}")
        return float(value)

    return check


def truth(value: Any, where: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise error(where, value, "must be True or False")
    return value


def text(value: Any, where: str) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        raise error(where, value, "must be a string")
    if not value.isprintable():
        raise error(where, value, "must have no control characters")
    return value


def some_text(value: Any, where: str) -> str:
    """A string that is not blank."""
    if not text(value, where).strip():
        raise error(where, value, "must not be empty")
    return value


def one_of(choices: Collection[str], empty: bool = False) -> Check:
    """One of the choices; `empty` also takes the empty string, for none."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise error(where, value, f"must be a string, one of {', '.join(choices)}")
        if value in choices or (empty and not value):
            return value
        close = difflib.get_close_matches(value, choices, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        if not choices:
            raise error(where, value, "there is nothing of that name; leave it empty, or give your own from Python")
        raise error(where, value, f"choose one of {', '.join(choices)}{hint}")

    return check


def several(check_one: Check, least: int = 0, distinct: bool = True) -> Check:
    """A tuple of values, at least so many; no value twice where they are to be `distinct`."""

    def check(value: Any, where: str) -> tuple:
        if not isinstance(value, (tuple, list)):
            raise error(where, value, "must be a tuple")
        # On a command line `a,b` is one string.
        items = [part.strip() for item in value for part in item.split(",")] if _all_text(value) else value
        checked = tuple(check_one(item, f"{where}[{i}]") for i, item in enumerate(items))
        if len(checked) < least:
            raise error(where, value, f"must have at least {least}")
        if distinct and len(set(checked)) < len(checked):
            raise error(where, value, "must not repeat a value")
        return checked

    return check


def _all_text(value: Any) -> bool:
    return all(isinstance(item, str) for item in value)


def group(make: Callable[..., Any], **fields: Check) -> Check:
    """A mapping with exactly these keys, given to `make` as keywords."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise error(where, value, f"must be a group with the keys {', '.join(fields)}")
        missing = [key for key in fields if key not in value]
        for key in value:
            if key not in fields:
                raise unknown(where, key, missing or list(fields))
        if missing:
            raise ConfigError(f"{where}: the key {missing[0]} is missing")
        return make(**{key: one(value[key], f"{where}.{key}") for key, one in fields.items()})

    return check


def unknown(where: str, key: str, known: Collection[str]) -> ConfigError:
    """The error for a key that is none of the known ones."""
    close = max(known, key=lambda name: _likeness(name, key))
    return ConfigError(f"{where}.{key}: there is no such key; did you mean {where}.{close}?")


def anything(value: Any, where: str) -> Any:
    """A value that is checked elsewhere."""
    return value
