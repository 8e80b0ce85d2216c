"""Verdicts on a claim while its seeds arrive: a group sequential test that keeps the error of 5 % (alpha spending).

Testing a 95 % interval after each of ten seeds, and stopping when it excludes zero, has a false positive rate of 20 %.
Here the error of 5 % is spent over the interim looks (Lan & DeMets 1983), as a function of the fraction t = n/N of the
N seeds that were planned before the first look,

    spent(t) = 2 - 2 Phi(z / sqrt(t)),  z = 1.96,

the spending function of O'Brien & Fleming (1979).  It spends almost nothing while seeds are few, so that almost all of
the error is left for the N-th seed, where the verdict hardly differs from that of a fixed-n test.  The reason for
interim looks is cost: seeds take hours, and a large effect is significant at half of them.  N must still be planned.
It is the number of seeds that the config named when the study began (recorded in a sweep's `planned.json`), even if the
study has grown since.  Seeds beyond N give no verdict, because they may have been added in view of the results.

Look n has a two-sided level (`levels`) and Student's t interval of that level, to which the rule of
`analysis.effects.stats` is applied.  `within`, two one-sided tests of 5 % each, spends a two-sided 10 %.  The first
look with a verdict decides.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.analysis.effects import stats
from plasticity_jax.analysis.effects.judgement import Judged
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs
from plasticity_jax.storage import results, workdir

FIRST = 2  # seeds at the first look; one seed has no interval
COLUMNS = "  {:<22} {:>7} {:>9}  {:<24} {:>8}  {}"
CELLS = 100  # of the grid, on its positive half
SMALL = 1e-4  # errors below it are not solved for
QUARTER = math.nextafter(math.pi / 2, 0)


@dataclasses.dataclass(frozen=True)
class Look:
    """The result of the first n seeds: mean effect, its interval of this level (None if undefined), and the verdict."""

    n: int
    effect: float
    level: float
    low: float | None
    high: float | None
    verdict: str


def spent(share: float, error: float = stats.ERROR) -> float:
    """The cumulative error that is spent at a fraction of the planned seeds."""
    from scipy.stats import norm

    return float(2 * norm.sf(norm.isf(error / 2) / math.sqrt(share)))


@functools.cache
def levels(planned: int, error: float = stats.ERROR) -> tuple[float, ...]:
    """The two-sided error of each look, after `FIRST` seeds and after every further one up to `planned`.

    Under the null hypothesis, the probability that a look excludes zero and no earlier one does equals the error spent
    between the two.  This is computed exactly for normal effects x of any variance: u_n = sum(x) / sqrt(sum(x^2)), of
    which the t statistic is a function, is a Markov chain,

        u_{n+1} = (u_n + w) / sqrt(1 + w^2),    sqrt(n) w ~ Student's t with n degrees of freedom,

    because the direction of (x_1 .. x_n), on which u_n depends, is independent of its length.  The distribution of u_n
    over the chains that have not stopped is propagated from look to look on a grid, as Armitage, McPherson & Rowe 1969
    do for normal sums.
    """
    import numpy as np
    from scipy import optimize
    from scipy.special import stdtr

    errors, points, masses = list[float](), np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    for n in range(FIRST, planned + 1):
        length = np.sqrt(1 + points**2)
        top = np.arctan2(1.0, points)  # the angle of w at which u_n is largest

        def above(u: Any, n: int = n, length: Any = length, top: Any = top) -> Any:
            """P(u_n > u) given each point, for one u >= 0 or a column of them."""
            reach = np.arccos(np.clip(u / length, -1, 1))
            ends = [np.tan(np.clip(top + side * reach, -QUARTER, QUARTER)) for side in (-1, 1)]
            return stdtr(n - 1, math.sqrt(n - 1) * ends[1]) - stdtr(n - 1, math.sqrt(n - 1) * ends[0])

        due = spent(n / planned, error) - (spent((n - 1) / planned, error) if n > FIRST else 0.0)

        def lacks(level: float, n: int = n, due: float = due, above: Any = above, masses: Any = masses) -> float:
            """The error that is due minus the error that this level spends."""
            return float(due - 2 * masses @ above(_bound(level, n)))

        # An error too small to solve for is used as the level, as if there were no earlier look.
        level = optimize.brentq(lacks, due, 1.0) if due > SMALL and lacks(due) > 0 else due
        errors.append(float(level))
        corner = math.asin(_bound(level, n) / math.sqrt(n))  # makes cells narrow where t is large
        edges = math.sqrt(n) * np.sin(np.linspace(0, corner, 2 * CELLS + 1))
        half = -np.diff(above(edges[::2, None]) @ masses)
        masses, points = np.tile(half, 2), np.outer((-1, 1), edges[1::2]).ravel()
    return tuple(errors)


def _bound(level: float, n: int) -> float:
    """The u_n at which n values have a two-sided p of `level`."""
    from scipy.special import stdtrit

    t = -stdtrit(n - 1, level / 2)
    return float(math.sqrt(n) * t / math.hypot(math.sqrt(n - 1), t))


def take(direction: str, margin: float, values: Sequence[float], planned: int) -> list[Look]:
    """All looks at the effects of seeds; seeds beyond the planned number give none.

    Args:
      direction, margin: of `analysis.effects.stats`.
      values: the effect of each available seed, in the planned order.
      planned: the number of planned seeds.
    """
    errors = levels(planned, 2 * stats.ERROR if direction == stats.WITHIN else stats.ERROR)
    looks = []
    for n, error in zip(range(FIRST, len(values) + 1), errors, strict=False):
        low, high = results.interval(values[:n], 1 - error)
        looks.append(
            Look(n, math.fsum(values[:n]) / n, 1 - error, low, high, stats.verdict(direction, margin, low, high))
        )
    return looks


def decided(looks: Sequence[Look]) -> Look | None:
    """The first look with a verdict, which is final; None if there is none so far."""
    return next((look for look in looks if look.verdict != stats.INCONCLUSIVE), None)


def planned(directory: Path, config: Mapping[str, Any]) -> list[int]:
    """The seeds of a study that were planned before the first look, in order.

    Raises:
      LabError: `planned.json` is damaged.
    """
    path = directory / jobs.PLANNED
    if not path.exists():
        return list(config["seeds"])
    noted = workdir.read_json(path, "restore it, or delete it to take the seeds of config.json as planned")
    if not isinstance(noted, list) or not noted or not set(map(type, noted)) == {int}:
        raise LabError(f"{path} is damaged (no list of seeds): restore it, or delete it to take those of config.json")
    return noted


def table(judged: Sequence[Judged], seeds: Mapping[Path, Sequence[int]]) -> str:
    """The looks at every claim as text; `seeds` are the planned ones by the directory of the study."""
    lines = ["verdicts while seeds arrive: all looks share an error of 5 % (alpha spending of O'Brien & Fleming)", ""]
    lines += [COLUMNS.format("claim", "seeds", "effect", "interval", "level", "verdict of this look")]
    for outcome in judged:
        plan = seeds[outcome.directory]
        looks = take(
            outcome.claim.direction,
            outcome.claim.margin,
            [outcome.by_seed[seed] for seed in plan if seed in outcome.by_seed],
            len(plan),
        )
        for look in looks:
            numbers = f"{look.n} of {len(plan)}", f"{look.effect:+,.2f}"
            between = "-" if look.low is None else f"[{look.low:+,.2f}, {look.high:+,.2f}]"
            lines += [COLUMNS.format(outcome.claim.id, *numbers, between, f"{100 * look.level:.4g}%", look.verdict)]
        if looks:
            first, beyond = decided(looks), len(set(outcome.by_seed) - set(plan))
            final = f"{first.verdict} at {first.n} seeds, which is final" if first else "no verdict so far"
            lines += [f"    {final}" + f"; {beyond} seeds beyond the plan are not used" * bool(beyond), ""]
    return "\n".join(lines)
