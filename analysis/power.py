"""Compute how many seeds a claim needs, from the variation between the seeds of a study.

    python -m analysis.power DIR [DIR...] [--points 1.0] [--power 0.8] [--json FILE] [--inconclusive] [--markdown]

For every claim in points of accuracy that can be tested on these studies, it prints the standard deviation of the
effect between the available seeds, and the number of seeds at which the rule of `analysis.effects.stats` gives the
verdict `reproduced` with the requested power

    above, below        if the true effect is `--points` in the claimed direction
    not_below, within   if the true effect is zero, with the margin of the claim

Use the number to choose n *before* a study is run.  A study is judged at the n that its config names, not at the first
n that gives a verdict; `analysis/effects/looks.py` says what may be concluded earlier.  A standard deviation from few
seeds is uncertain, so there are two numbers: one for the measured standard deviation, and one for the upper end of its
one-sided 80 % interval (Browne 1995), which is the one to plan with.  The power is exact for normal differences: it
uses the noncentral t distribution, and for two one-sided tests an integral over the standard deviation (Schuirmann
1987).
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence

from plasticity_jax import strict_json
from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects import stats
from plasticity_jax.analysis.effects.contrasts import Claim
from plasticity_jax.analysis.effects.judgement import judge
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output

POINTS, POWER = 1.0, 0.8
UPPER = 0.8  # level of the upper bound of a standard deviation
MOST = 10_000  # largest number of seeds that is searched
NODES = 400  # of the integral over the standard deviation
COLUMNS = "  {:<26} {:>10} {:>3} {:>6} {:>6} {:>9} {:>8} {:>8}"
HEAD = ("claim", "holds if", "n", "sd", "up to", "power now", "seeds", "at most")


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim about one study, and the number of seeds that it needs.

    n: available seeds.
    sd: the standard deviation of the effect between seeds, in points.
    upper: its upper bound.
    verdict: of the claim, by the n seeds.
    power: the probability of the verdict `reproduced` with n seeds.
    needed, at_most: seeds for the requested power, assuming `sd` and `upper`; None if more than `MOST`.
    """

    study: str
    directory: str
    claim: str
    statement: str
    direction: str
    verdict: str
    n: int
    sd: float
    upper: float
    power: float
    needed: int | None
    at_most: int | None


def rows(read: Iterable[studies.Study], points: float = POINTS, target: float = POWER) -> list[Row]:
    """A row for each claim in points with at least two seeds and a nonzero standard deviation."""
    result = []
    for outcome in judge(read):
        if outcome.claim.unit == "points" and outcome.low is not None:
            sd = _sd(list(outcome.by_seed.values()))
            upper = bound(sd, outcome.n)
            size, direction = _size(outcome.claim, points), outcome.claim.direction
            result.append(
                Row(
                    study=outcome.claim.study,
                    directory=str(outcome.directory),
                    claim=outcome.claim.id,
                    statement=outcome.claim.statement,
                    direction=direction,
                    verdict=outcome.verdict,
                    n=outcome.n,
                    sd=sd,
                    upper=upper,
                    power=power(direction, size, sd, outcome.n),
                    needed=seeds(direction, size, sd, target),
                    at_most=seeds(direction, size, upper, target),
                )
            )
    return result


def power(direction: str, size: float, sd: float, n: int) -> float:
    """The probability that n seeds give the verdict `reproduced`, for normally distributed effects.

    Args:
      direction: of `analysis.effects.stats`.
      size: the true effect in the claimed direction; for `not_below` and `within`, whose true effect is taken as zero,
        the margin.
      sd: the standard deviation of the effect between seeds.
    """
    from scipy import integrate
    from scipy import stats as distributions

    if n < 2:
        return 0.0
    half = distributions.t.ppf((1 + stats.level(direction)) / 2, n - 1)
    shift = size / sd * math.sqrt(n)
    if direction != stats.WITHIN:
        return float(distributions.nct.sf(half, n - 1, shift))
    # If the sample standard deviation is c times the true one, the mean must lie within shift - half * c, in units of
    # its standard error.  The mean is normal, c * sqrt(n - 1) has the chi distribution, and the two are independent.
    end = min(shift / half, distributions.chi.isf(1e-12, n - 1) / math.sqrt(n - 1))
    start = distributions.chi.ppf(1e-12, n - 1) / math.sqrt(n - 1)
    if end <= start:
        return 0.0
    nodes = [start + (end - start) * i / NODES for i in range(NODES + 1)]
    density = distributions.chi.pdf([c * math.sqrt(n - 1) for c in nodes], n - 1) * math.sqrt(n - 1)
    inside = [max(0.0, 2 * distributions.norm.cdf(shift - half * c) - 1) for c in nodes]
    return float(integrate.simpson(density * inside, x=nodes))


def seeds(direction: str, size: float, sd: float, target: float = POWER) -> int | None:
    """The smallest number of seeds with this power; None if it exceeds `MOST`."""
    low, high = 1, 2
    while power(direction, size, sd, high) < target:
        low, high = high, 2 * high
        if low >= MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(direction, size, sd, middle) >= target else (middle, high)
    return high if high <= MOST else None


def bound(sd: float, n: int) -> float:
    """The upper end of the one-sided interval of a standard deviation from n values: sd * sqrt((n-1) / chi2)."""
    from scipy import stats as distributions

    return sd * math.sqrt((n - 1) / distributions.chi2.ppf(1 - UPPER, n - 1))


def table(needed: Sequence[Row], points: float = POINTS, target: float = POWER) -> str:
    """The rows as text, grouped by study."""
    lines = [f"seeds for a power of {target:.0%}, for an effect of {points:g} points or the margin of the claim", ""]
    for directory in dict.fromkeys(row.directory for row in needed):
        of_study = [row for row in needed if row.directory == directory]
        lines += [f"{of_study[0].study}: {directory}", COLUMNS.format(*HEAD)]
        for row in of_study:
            numbers = f"{row.sd:.2f}", f"{row.upper:.2f}", f"{row.power:.0%}"
            lines += [COLUMNS.format(row.claim, row.direction, row.n, *numbers, *_counts(row))]
        lines += [""]
    if not needed:
        lines += ["no claim in points with at least two seeds", ""]
    return "\n".join(lines)


def markdown(needed: Sequence[Row]) -> str:
    """The rows as a table in Markdown, those that need the fewest seeds first."""
    lines = ["| study | claim | n | sd | power now | seeds | at most |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in sorted(needed, key=lambda row: (row.needed or MOST + 1, row.at_most or MOST + 1)):
        cells = row.study, row.statement, row.n, f"{row.sd:.2f}", f"{row.power:.0%}", *_counts(row)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity power", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study or sweep")
    parser.add_argument("--points", type=float, default=POINTS, help="true effect in points (default %(default)s)")
    parser.add_argument("--power", type=float, default=POWER, help="probability of the verdict (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument("--inconclusive", action="store_true", help="only claims whose verdict is inconclusive")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown instead")
    options = parser.parse_args(argv)
    try:
        if not options.points > 0:
            raise LabError(f"--points={options.points:g}: must be above 0")
        if not 0.5 <= options.power < 1:
            raise LabError(f"--power={options.power:g}: must be in [0.5, 1)")
        read = list(studies.read_all(options.directories))
        needed = rows(read, options.points, options.power)
        if options.inconclusive:
            needed = [row for row in needed if row.verdict == stats.INCONCLUSIVE]
        if options.json:
            out = paths.given(options.json)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(strict_json.dumps([dataclasses.asdict(row) for row in needed], indent=2) + "\n")
    except (LabError, OSError) as e:
        sys.exit(f"analysis.power: {e}")
    print(markdown(needed) if options.markdown else table(needed, options.points, options.power))


def _counts(row: Row) -> list[str]:
    return [f"> {MOST:,}" if count is None else f"{count:,}" for count in (row.needed, row.at_most)]


def _size(claim: Claim, points: float) -> float:
    return points if claim.direction in (stats.ABOVE, stats.BELOW) else claim.margin


def _sd(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


if __name__ == "__main__":
    main()
