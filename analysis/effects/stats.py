"""The rule that turns the effect of a claim into a verdict, the same for every claim.

1.  An effect is measured for each seed (`analysis.effects.contrasts`).  A seed that lacks a term (failed, or not yet
    finished) is left out.  Data and batches, which the runs of a seed share, cancel in this way.  The effect is the
    mean over the n seeds.
2.  Its interval is Student's t interval of level 95%, or 90% for `within`.  There is no interval if n < 2, or if all
    seeds agree to the last digit: zero scatter is no certainty (three runs that never stop early differ by the same
    number of updates for any seed).  Without an interval a claim is inconclusive, also after corrections.
3.  `above`      reproduced if the whole interval is above 0, contradicted if all of it is below 0, else inconclusive.
    `below`      the same, mirrored.
    `not_below`  non-inferiority: no more than the margin below.  Reproduced if the whole interval is above -margin,
                 contradicted if all of it is below -margin; a positive effect of any size is no contradiction.
    `within`     equivalence: |effect| <= margin, by two one-sided tests of 5% each (TOST).  Reproduced if the whole 90%
                 interval is inside [-margin, margin], contradicted if all of it is outside (a minimum-effect test).
    Absence of evidence is not evidence of absence: with few seeds the last two are mostly inconclusive.
4.  The family of a correction is a paper: all claims about it, including our own controls, whether or not their study
    is among the given ones.  k is their number.  Claims on the same numbers, up to the sign, count once; a study in
    two directories counts twice if its numbers differ.  Claims without a study count as not significant.
5.  A verdict *holds after Bonferroni* if the interval of level 1 - 0.05/k (1 - 0.1/k for `within`) gives the same
    verdict.  It holds *after Holm* if it is significant in Holm's step-down procedure at a familywise error of 5%.

So a true effect of zero is judged as reproduced in 2.5% of all cases of `above`, at any n, if effects are normal.  The
margin is one point unless a claim states another.  The gap of interest is 3 to 4 points (Ash & Adams 2020, Table 1:
78.0 and 74.4), so one point is negligible in comparison.  And one point is about the standard deviation of a run (0.6
to 1.0 there), so ten seeds or more can resolve it: their interval has a half-width of 0.7 points or less.

The claims, their margins and the first rule were written before the results were known, except for an earlier run of
`multistage:small` (a gap of 2.6 points, train accuracy 97.2%).  After the published results were known, errors in the
rule were corrected: `not_below` was judged as `within`, so that better results than claimed were contradictions;
`within` used the 95% interval; zero scatter was treated as certainty; and k was the number of claims in one call.
"""

from collections.abc import Hashable, Sequence

from plasticity_jax.storage import results

ABOVE, BELOW, NOT_BELOW, WITHIN = "above", "below", "not_below", "within"
DIRECTIONS = (ABOVE, BELOW, NOT_BELOW, WITHIN)
REPRODUCED, CONTRADICTED, INCONCLUSIVE = "reproduced", "contradicted", "inconclusive"
UNTESTED = "not tested"
MARGIN = 1.0  # points
ERROR = 1 - results.LEVEL  # the error of a verdict, and of a family


def level(direction: str, error: float = ERROR) -> float:
    """The level of the interval for a direction."""
    return 1 - 2 * error if direction == WITHIN else 1 - error


def verdict(direction: str, margin: float, low: float | None, high: float | None) -> str:
    """The verdict from an interval by the rule above; low and high are None without an interval."""
    if low is None or high is None:
        return INCONCLUSIVE
    match direction:
        case "above":
            yes, no = low > 0, high < 0
        case "below":
            yes, no = high < 0, low > 0
        case "not_below":
            yes, no = low > -margin, high < -margin
        case "within":
            yes, no = -margin <= low and high <= margin, low > margin or high < -margin
        case _:
            raise ValueError(f"direction={direction!r}: {', '.join(DIRECTIONS)}")
    return REPRODUCED if yes else CONTRADICTED if no else INCONCLUSIVE


def p_value(direction: str, margin: float, values: Sequence[float]) -> float:
    """The smallest error at which the rule gives a verdict, either way; 1 without an interval."""
    if results.interval(values)[0] is None:
        return 1.0
    if direction == WITHIN:
        inside = max(_p(values, -margin, "greater"), _p(values, margin, "less"))
        outside = min(_p(values, margin, "greater"), _p(values, -margin, "less"))
        return min(inside, outside)
    return _p(values, -margin if direction == NOT_BELOW else 0.0, "two-sided")


def holm(tests: Sequence[tuple[Hashable, float]], k: int) -> list[float]:
    """The p-values of tests after Holm's correction, in the same order.

    Args:
      tests: pairs of what was measured and the p-value; equal measurements count as one test.
      k: the size of the family, including tests that are not given.
    """
    order = sorted(range(len(tests)), key=lambda i: tests[i][1])
    absent = k - len({what for what, _ in tests})
    corrected, worst = [1.0] * len(tests), 0.0
    for place, i in enumerate(order):
        remain = absent + len({tests[j][0] for j in order[place:]})
        worst = corrected[i] = max(worst, min(1.0, remain * tests[i][1]))
    return corrected


def _p(values: Sequence[float], bound: float, alternative: str) -> float:
    from scipy import stats  # imported here because it takes a second

    return float(stats.ttest_1samp(values, bound, alternative=alternative).pvalue)
