"""Standard JSON: NaN and infinities are written and read as null."""

import json
import math
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as JSON: NaN and infinities as null, scalars of numpy and jax as numbers.

    Raises:
      TypeError: it contains a value that JSON cannot represent.
    """
    try:
        return json.dumps(value, indent=indent, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, default=_plain, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; `NaN` and `Infinity`, written by earlier versions, become None.

    Raises:
      ValueError: it is not valid JSON.
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
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return value.item()
