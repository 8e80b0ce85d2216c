"""Measures of a transition in a training curve: jump, sharpness and ratio, at a decay or a placebo epoch.

    studies.values(study, "stepdecay", "test_accuracy", jumps.At(jumps.JUMP, decay=1))           {seed: points}
    studies.values(study, "stepdecay", "test_accuracy", jumps.At(jumps.JUMP, decay=1, shift=1/3))

A decay is the end of a learning stage of the plan, at the epochs that `milestones` give.  With m(e) the value after
epoch e, t the epoch of the decay, k the epochs that are averaged (a tenth of the shortest stage, but 3 to 5) and s the
epoch at which the stage before it began:

    jump       J = mean m(t-k+1 .. t) - mean m(t+1 .. t+k)
    sharpness  S = J / standard deviation of m(t-2k+1 .. t) around a straight line
    ratio      R = J / (m(s+k) - m(t)), the progress of the stage up to then
    before, after   the two means of J;  end   m(t)

J and the progress are counted so that an improvement is positive: accuracies rise, everything else falls.

A `shift`, in lengths of the stage before the decay, moves t to a placebo epoch; s, and so the denominator of R, does
not change.  The epochs around a placebo exclude the k epochs before and after a decay: in short stages the placebo is
moved away from the decay as far as needed, and the measure is undefined if that is not possible.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

JUMP, SHARPNESS, RATIO, BEFORE, AFTER, END = "jump", "sharpness", "ratio", "before", "after", "end"
CHANGES = (JUMP, SHARPNESS, RATIO)  # measures whose expected value is zero if nothing changes
MOST, LEAST, SHARE = 5, 3, 0.1  # of k, and k as a share of the shortest stage


@dataclasses.dataclass(frozen=True)
class At:
    """A measure of a transition.  kind: one of the above.  decay: its number, from 1.  shift: of a placebo."""

    kind: str
    decay: int
    shift: float = 0.0

    def __str__(self) -> str:
        where = f"decay {self.decay}"
        return f"{self.kind} at {where}" if not self.shift else f"{self.kind} {self.shift:+.2g} stages from {where}"


def measure(at: At, curve: Mapping[float, float], bounds: Sequence[float], rises: bool) -> float:
    """The measure for one run's curve, epoch -> value; NaN if the curve or the plan is too short.

    Args:
      bounds: epochs at which learning stages begin and the last one ends: 0, every decay, the end.
      rises: whether larger values are better.
    """
    if not 1 <= at.decay < len(bounds) - 1:
        return math.nan
    begin, decay = bounds[at.decay - 1], bounds[at.decay]
    k = span(bounds)
    t = _placebo(at, bounds, k) if at.shift else round(decay)
    if t is None:
        return math.nan

    def mean(first: int, last: int) -> float:
        return float(np.mean([curve.get(float(e), math.nan) for e in range(first, last + 1)]))

    before, after = mean(t - k + 1, t), mean(t + 1, t + k)
    jump = after - before if rises else before - after
    match at.kind:
        case "jump":
            return jump
        case "sharpness":
            values = [curve.get(float(e), math.nan) for e in range(t - 2 * k + 1, t + 1)]
            return jump / _scatter(values) if np.isfinite(values).all() else math.nan
        case "ratio":
            start, end = (curve.get(float(e), math.nan) for e in (round(begin) + k, t))
            progress = end - start if rises else start - end
            return jump / progress if progress else math.nan
        case "before":
            return before
        case "after":
            return after
        case "end":
            return curve.get(float(t), math.nan)
    raise ValueError(f"kind={at.kind!r}: {JUMP}, {SHARPNESS}, {RATIO}, {BEFORE}, {AFTER} or {END}")


def span(bounds: Sequence[float]) -> int:
    """k, the number of epochs averaged on either side."""
    shortest = min(b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True))
    return int(min(MOST, max(LEAST, round(SHARE * shortest))))


def _placebo(at: At, bounds: Sequence[float], k: int) -> int | None:
    """The placebo epoch given by the shift, or the nearest one far enough from decays; None if there is none.

    It measures from `t - reach + 1` to `t + k`, in the stage before the decay or in the one after it.
    """
    reach = 2 * k if at.kind == SHARPNESS else k
    stage = at.decay - (at.shift < 0)
    begin, end = bounds[stage], bounds[stage + 1]
    first = math.ceil(begin) + reach + (k if stage else 0)  # training begins without a decay,
    last = math.floor(end) - k - (k if stage + 2 < len(bounds) else 0)  # and ends without one
    wanted = round(bounds[at.decay] + at.shift * (bounds[at.decay] - bounds[at.decay - 1]))
    return max(first, min(last, wanted)) if first <= last else None


def _scatter(values: Sequence[float]) -> float:
    """The standard deviation around a fitted line (n - 2 degrees of freedom); never zero."""
    x = np.arange(len(values))
    rest = np.asarray(values) - np.polyval(np.polyfit(x, values, 1), x)
    return max(math.sqrt(float(np.sum(rest**2)) / (len(values) - 2)), 1e-9)
