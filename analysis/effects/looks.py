"""The verdict of a claim as its seeds arrive, by a rule under which looking is no evidence: alpha spending.

Who looks after each of ten seeds whether a 95 % interval leaves out zero, and stops when it does, finds an effect that
is not there in 20 % of all cases.  Here the error of 5 % is spent over the looks (Lan & DeMets 1983), as a function of
the share t = n/N of the N seeds that were planned before the first look,

    spent(t) = 2 - 2 Phi(z / sqrt(t)),  z = 1.96,

the form of O'Brien & Fleming (1979): next to nothing while seeds are few, so that at the N-th almost all of it is left,
and the verdict there hardly differs from that of a study nobody had looked at.  It was taken, and not a fixed n alone,
as seeds cost hours: an effect that is plain at half of them needs no more.  It needs N all the same.  N is what the
config named when the study was begun (a sweep remembers it, `planned.json`), whatever it has grown to since; seeds
beyond N give no verdict, since whoever grows a study by what it shows has looked.

Look n has the two-sided level that comes of it (`levels`), and the interval of Student's t of that level, by which the
rule of `analysis.effects.stats` judges.  `within`, two one-sided tests of 5 %, spends 10 % of both sides.  The first
verdict of a look stands.
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

FIRST = 2  # seeds that have an interval
COLUMNS = "  {:<22} {:>7} {:>9}  {:<24} {:>8}  {}"
CELLS = 100  # of the positive half
SMALL = 1e-4
QUARTER = math.nextafter(math.pi / 2, 0)


@dataclasses.dataclass(frozen=True)
class Look:
    """What the first n seeds say: the mean effect, its interval of a level (None if there is none), and the verdict."""

    n: int
    effect: float
    level: float
    low: float | None
    high: float | None
    verdict: str


def spent(share: float, error: float = stats.ERROR) -> float:
    """The error that is spent when a share of the planned seeds has been looked at."""
    from scipy.stats import norm

    return float(2 * norm.sf(norm.isf(error / 2) / math.sqrt(share)))


@functools.cache
def levels(planned: int, error: float = stats.ERROR) -> tuple[float, ...]:
    """The two-sided error of each look, after `FIRST` seeds and after every further one up to those planned.

    A look must leave out zero, where no look before did, with the probability that is spent between the two.  For
    normal effects x of mean 0 and any variance that is exact: u_n = sum(x) / sqrt(sum(x^2)), which has the t statistic
    as its function, is a Markov chain,

        u_{n+1} = (u_n + w) / sqrt(1 + w^2),    sqrt(n) w ~ Student's t of n degrees,

    as the direction of (x_1 .. x_n), of which u_n is a function, is independent of its length.  The masses of chains
    that are still inside are carried from look to look in cells, as Armitage, McPherson & Rowe 1969 do for normal sums.
    """
    import numpy as np
    from scipy import optimize
    from scipy.special import stdtr

    errors, points, masses = list[float](), np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    for n in range(FIRST, planned + 1):
        length = np.sqrt(1 + points**2)
        top = np.arctan2(1.0, points)  # the angle of w at which u_n is largest

        def above(u: Any, n: int = n, length: Any = length, top: Any = top) -> Any:
            """P(u_n > u >= 0) from each point, for one u or a column of them."""
            reach = np.arccos(np.clip(u / length, -1, 1))
            ends = [np.tan(np.clip(top + side * reach, -QUARTER, QUARTER)) for side in (-1, 1)]
            return stdtr(n - 1, math.sqrt(n - 1) * ends[1]) - stdtr(n - 1, math.sqrt(n - 1) * ends[0])

        due = spent(n / planned, error) - (spent((n - 1) / planned, error) if n > FIRST else 0.0)

        def lacks(level: float, n: int = n, due: float = due, above: Any = above, masses: Any = masses) -> float:
            """How much is left of what is due, for the chains that leave at a level."""
            return float(due - 2 * masses @ above(_bound(level, n)))

        # What is too small to be solved for is taken as if no look had been before.
        level = optimize.brentq(lacks, due, 1.0) if due > SMALL and lacks(due) > 0 else due
        errors.append(float(level))
        corner = math.asin(_bound(level, n) / math.sqrt(n))  # cells are narrow where t is large
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
    """All looks at the effects of seeds, in the order in which those were planned; none at seeds beyond the plan.

    Args:
      direction, margin: of `analysis.effects.stats`.
      values: the effect of each seed that is there.
      planned: how many were planned.
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
    """The first look with a verdict, which stands; None if there is none so far."""
    return next((look for look in looks if look.verdict != stats.INCONCLUSIVE), None)


def planned(directory: Path, config: Mapping[str, Any]) -> list[int]:
    """The seeds of a study that were planned before the first look, in their order.

    Raises:
      LabError: the record of them is damaged.
    """
    path = directory / jobs.PLANNED
    if not path.exists():
        return list(config["seeds"])
    noted = workdir.read_json(path, "restore it, or delete it to take the seeds of config.json as planned")
    if not isinstance(noted, list) or not noted or not set(map(type, noted)) == {int}:
        raise LabError(f"{path} is damaged (no list of seeds): restore it, or delete it to take those of config.json")
    return noted


def table(judged: Sequence[Judged], seeds: Mapping[Path, Sequence[int]]) -> str:
    """The looks at every claim that has some, for people; `seeds` are those planned, by the directory of the study."""
    lines = ["verdicts as seeds arrive: an error of 5 % is spent over all looks, by the form of O'Brien & Fleming", ""]
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
            stands = f"{first.verdict} at {first.n} seeds, which stands" if first else "no verdict so far"
            lines += [f"    {stands}" + f"; {beyond} seeds beyond the plan give none" * bool(beyond), ""]
    return "\n".join(lines)
