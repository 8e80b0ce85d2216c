"""Reads the loss on the line between the fresh and the warm network of each seed, written by `plasticity_jax.lines`."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError
from plasticity_jax.storage.results import LINES


@dataclasses.dataclass(frozen=True)
class Lines:
    """start, end: the two branches.  loss: of each seed, at equal distances from start to end."""

    start: str
    end: str
    loss: Mapping[int, tuple[float, ...]]


def read(directory: Path) -> Lines | None:
    """Returns the content of a study's `lines.json`; None if there is no such file.

    Raises:
      LabError: the file is damaged.
    """
    path = directory / LINES
    if not path.exists():
        return None
    try:
        content = strict_json.loads(path.read_bytes())
        loss = {int(seed): tuple(map(float, values)) for seed, values in content["loss"].items()}
        lines = Lines(str(content["from"]), str(content["to"]), loss)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise LabError(f"{path} is damaged ({e}): delete it, or rewrite it with `plasticity lines`") from e
    lengths = {len(values) for values in loss.values()}
    if len(lengths) > 1 or lengths & {0, 1} or not all(math.isfinite(x) for values in loss.values() for x in values):
        raise LabError(
            f"{path} is damaged (every seed needs the same number of finite losses): rewrite it with `plasticity lines`"
        )
    return lines
