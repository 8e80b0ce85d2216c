"""Charts as data, independent of the drawing library.

`analysis.figures` makes charts of studies, `matplotlib_backend` draws them with matplotlib, `analysis.report` puts them
into a page.
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

    low, high: NaN where there are less than two runs.
    role: `fresh` (the control), `warm`, `other`, or `shared` (a stage that several continue from); it tells the colour.
    level: a single value that holds at every x, drawn across the chart.
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

    series: those of one name belong together, as the stages of one branch do: one colour, named once.
    about: data set, scale and seeds in a line.
    form: `curve` (lines), `points` (means with error bars, joined), or `bars` (a group of each x side by side).
    scale: of x: `linear`, `log`, or `symlog` (for counts from 0 on).
    ticks: position and name of each x, empty for numbers.
    window: the stretch of x that the metric is taken over.
    origin: mark x = 0, where tuning begins.
    view: the y axis, (low, high); None for all there is.
    joined: connect the means of `points`; not where x is only a name.
    zero: mark y = 0, where there is no gap.
    marks: further x to mark, where the learning rate falls.
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
    """The chart with some x marked."""
    return dataclasses.replace(chart, marks=tuple(marks))


def series(name: str, by_seed: Mapping[int, Mapping[float, float]], role: str = "other", level: bool = False) -> Series:
    """A series from {seed: {x: y}}: at every x the mean of the seeds that have it, with its interval."""
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
    """A series from {x: {seed: y}}, as `studies.values` gives y; nothing stands at an x without a seed."""
    seeds = dict.fromkeys(seed for values in at.values() for seed in values)
    by_seed = {seed: {float(x): values[seed] for x, values in at.items() if seed in values} for seed in seeds}
    return series(name, by_seed, role)


def level(name: str, values: Mapping[int, float], role: str = "other") -> Series:
    """A level from {seed: y}."""
    return series(name, {seed: {0.0: value} for seed, value in values.items()}, role, level=True)
