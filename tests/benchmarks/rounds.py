"""Measurements in turn, so that a shared or warming machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Side = Callable[[], float]
REST = 0.05  # seconds until the threads of the last measurement sleep


def interleave(
    sides: Mapping[str, Side], count: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """The numbers of each side, one for each of `count` rounds; every other round goes backwards.

    Args:
      after_round: called after each round.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(count):
        for name in list(sides)[:: -1 if i % 2 else 1]:
            time.sleep(REST)
            rates[name].append(sides[name]())
        after_round()
    return rates


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the greatest value."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(rates: Mapping[str, Sequence[float]], one: str, other: str) -> dict[str, float]:
    """The spread of `one` over `other`, round by round, so that what slows both cancels."""
    return spread([a / b for a, b in zip(rates[one], rates[other], strict=True)])


def steps_for(train: Callable[[int], float], seconds: float) -> int:
    """The number of steps that take `seconds`; the first call of `train`, which may compile, is not measured."""
    train(1)
    few = max(1, round(seconds / 4 / max(train(1), 1e-6)))
    return max(1, round(seconds * few / max(train(few), 1e-6)))
