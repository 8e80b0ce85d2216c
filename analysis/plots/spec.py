"""Charts as data, independent of the plotting library.

`analysis.figures` makes charts from studies, `matplotlib_backend` draws them with matplotlib, and `analysis.report`
puts them into a page.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from plasticity_jax.storage import results


@dataclasses.dataclass(frozen=True)
class Line:
    """One run: its seed and its points."""

    seed: int
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Series:
    """Runs that differ only in their seed, with mean and 95% interval at each x.

    low, high: NaN where there are fewer than two runs.
    role: sets the colour: `fresh` (the control), `warm`, `other`, or `shared` (a stage from which several continue).
    level: a single value for every x, drawn as a horizontal line across the chart.
    """

    name: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    lines: tuple[Line, ...]
    role: str = "other"
    level: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """Axes and their content.

    series: series of the same name share a colour and a legend entry, such as the stages of one branch.
    about: one line with data set, scale and seeds.
    form: `curve` (lines), `points` (means with error bars), or `bars` (grouped by x).
    scale: of the x axis: `linear`, `log`, or `symlog` (for counts that start at 0).
    ticks: position and label of each tick; empty for numeric labels.
    window: the range of x over which the metric is averaged, which is marked.
    origin: mark x = 0, where tuning begins.
    view: the range of the y axis, (low, high); None for all data.
    joined: connect the means of `points`; False if x is categorical.
    zero: mark y = 0, where there is no gap.
    marks: further x to mark, where the learning rate decays.
    """

    name: str
    title: str
    about: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    form: str = "points"
    scale: str = "linear"
    ticks: tuple[tuple[float, str], ...] = ()
    window: tuple[float, float] | None = None
    origin: bool = False
    view: tuple[float, float] | None = None
    joined: bool = True
    zero: bool = False
    marks: tuple[float, ...] = ()


def marked(chart: Chart, marks: Iterable[float]) -> Chart:
    """The chart with these x marked."""
    return dataclasses.replace(chart, marks=tuple(marks))


def series(name: str, by_seed: Mapping[int, Mapping[float, float]], role: str = "other", level: bool = False) -> Series:
    """A series from {seed: {x: y}}: at each x the mean of the seeds that have this x, with its interval."""
    xs = sorted(set().union(*by_seed.values())) if by_seed else []
    at = [[points[x] for points in by_seed.values() if x in points] for x in xs]
    intervals: Sequence[list[float | None]] = [results.interval(found) for found in at]
    low, high = (
        tuple(float("nan") if each[i] is None else float(each[i] or 0.0) for each in intervals) for i in (0, 1)
    )
    lines = tuple(
        Line(seed, tuple(sorted(points)), tuple(points[x] for x in sorted(points))) for seed, points in by_seed.items()
    )
    return Series(name, tuple(xs), tuple(float(np.mean(found)) for found in at), low, high, lines, role, level)


def across(
    name: str, at: Mapping[float, Mapping[int, float]] | Mapping[int, Mapping[int, float]], role: str = "other"
) -> Series:
    """A series from {x: {seed: y}}, with y as `studies.values` returns it; an x without seeds has no point."""
    seeds = dict.fromkeys(seed for values in at.values() for seed in values)
    by_seed = {seed: {float(x): values[seed] for x, values in at.items() if seed in values} for seed in seeds}
    return series(name, by_seed, role)


def level(name: str, values: Mapping[int, float], role: str = "other") -> Series:
    """A horizontal line at the mean of {seed: y}."""
    return series(name, {seed: {0.0: value} for seed, value in values.items()}, role, level=True)


def written(x: float) -> str:
    """A number as the label of a tick: `1,600`, `0.003`; with an exponent only below 0.0001."""
    return f"{x:,.10g}"
