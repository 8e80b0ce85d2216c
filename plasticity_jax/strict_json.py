"""JSON that every parser takes: what is not a finite number is null, going out and coming in."""

import json
import math
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as JSON: NaN and infinities as null, scalars of numpy and jax as numbers.

    Raises:
      TypeError: something in it is no JSON.
    """
    try:
        return json.dumps(value, indent=indent, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, default=_plain, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """What JSON says; the `NaN` and `Infinity` that earlier versions wrote are None.

    Raises:
      ValueError: it is no JSON.
    """
    return json.loads(text, parse_constant=lambda name: None)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    value = _plain(value) if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """Scalars of numpy and jax as Python numbers."""
    if not hasattr(value, "item"):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return value.item()
