"""Ratios of means with Fieller's confidence set: Fieller 1954, "Some problems in interval estimation".

A ratio of two differences has no interval of the form mean +- error: if the denominator may be zero, the ratio may be
anything, which a bootstrap or the delta method would hide.  Fieller's set contains all r for which a t test of
`top - r * bottom`, paired by seed, does not reject 0.  It has the nominal level for every true ratio.  It is

    an interval                     if zero is rejected for the denominator
    the complement of an interval   if not, but some ratios are rejected: r <= low or r >= high
    the whole line                  if no ratio is rejected
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from plasticity_jax.storage import results

BETWEEN, OUTSIDE, ANYTHING = "between", "outside", "anything"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of means, and its confidence set.

    value: NaN if the denominator is zero, or nothing was measured.
    form: `between` low and high, `outside` of them, or `anything`.
    """

    value: float
    low: float
    high: float
    form: str


def fieller(top: Mapping[int, float], bottom: Mapping[int, float], level: float = results.LEVEL) -> Ratio:
    """The ratio of two means over common seeds, with Fieller's set of the given level.

    The set is the whole line with fewer than two seeds, or if numerator or denominator is equal for all seeds to the
    last digit, since zero scatter is no certainty.
    """
    seeds = sorted(top.keys() & bottom.keys())
    a, b = (np.array([values[seed] for seed in seeds], float) for values in (top, bottom))
    value = float(a.mean() / b.mean()) if len(seeds) and b.mean() else math.nan
    if len(seeds) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Ratio(value, math.nan, math.nan, ANYTHING)
    from scipy.special import stdtrit

    share = stdtrit(len(seeds) - 1, (1 + level) / 2) ** 2 / len(seeds)
    (aa, ab), (_, bb) = np.cov(a, b) * share
    # The r with (mean(a) - r mean(b))^2 <= t^2 var(a - r b) / n: square * r^2 - 2 mixed * r + rest <= 0.
    square, mixed, rest = b.mean() ** 2 - bb, a.mean() * b.mean() - ab, a.mean() ** 2 - aa
    under = mixed**2 - square * rest
    if square == 0 or under < 0:
        return Ratio(value, math.nan, math.nan, ANYTHING)
    low, high = sorted(float((mixed + sign * math.sqrt(under)) / square) for sign in (-1, 1))
    return Ratio(value, low, high, BETWEEN if square > 0 else OUTSIDE)


def shown(ratio: Ratio) -> str:
    """The ratio in percent, with its set, as `80 % [55, 110]`, `80 % (<= -20 or >= 60)` or `80 % (anything)`."""
    if math.isnan(ratio.value):
        return "-"
    low, high = f"{100 * ratio.low:.0f}", f"{100 * ratio.high:.0f}"
    bounds = {BETWEEN: f"[{low}, {high}]", OUTSIDE: f"(<= {low} or >= {high})", ANYTHING: "(anything)"}[ratio.form]
    return f"{100 * ratio.value:.0f} % {bounds}"
