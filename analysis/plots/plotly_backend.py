"""Draws charts with plotly, for pages that show run, position and value of a point on hover.

    plotly_backend.figure(chart).to_plotly_json()  the input of plotly.js: {"data": [..], "layout": {..}}
    plotly_backend.key(chart)                      the legend: name and style of each series

The title, the caption and the legend are not part of the figure, so that the page can wrap their text.  The trace of a
run has the name of its series as `legendgroup` and "SERIES, seed N" as `meta`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import plotly.graph_objects as go

from plasticity_jax.analysis.plots import plotly_axes
from plasticity_jax.analysis.plots.matplotlib_backend import styles
from plasticity_jax.analysis.plots.spec import Chart, Line, Series

DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
MARKERS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"}
DIGITS = 4  # decimals of numbers in a page
STOPS = 24  # points of a level line that react to the pointer

Trace: TypeAlias = go.Scatter | go.Bar
Style = tuple[str, str, str]  # colour, dash and marker, as `matplotlib_backend` calls them


def figure(chart: Chart, runs: bool = False) -> go.Figure:
    """A figure of a chart.

    Args:
      runs: draw every run, without means and intervals.
    """
    look = styles(chart.series)
    shown = [one for one in chart.series if not one.level]
    made = go.Figure(layout=plotly_axes.layout(chart))
    for i, one in enumerate(shown):
        shift = plotly_axes.step(chart) * (i - (len(shown) - 1) / 2)
        if runs:
            made.add_traces(_runs(chart, one, look[one.name], width=1.4, opacity=0.8))
        else:
            made.add_traces(FORMS[chart.form](chart, one, look[one.name], shift))
    for one in chart.series:
        if one.level and one.x and not runs:
            made.add_traces(_level(chart, one, look[one.name]))
    return made


def key(chart: Chart) -> list[tuple[str, str, str]]:
    """The legend: name, colour and dash (`solid`, `dash`, `dot`, `dashdot`) of each series; one entry per name."""
    return [(name, colour, DASHES[dash]) for name, (colour, dash, _) in styles(chart.series).items()]


def run_name(one: Series, line: Line) -> str:
    """The name of a run in figures and in the list of runs."""
    return f"{one.name}, seed {line.seed}"


def _curve(chart: Chart, one: Series, look: Style, shift: float) -> list[Trace]:
    colour, dash, marker = look
    lone, places = len(one.x) == 1, [plotly_axes.place(chart, x) for x in one.x]
    mean = _mean(chart, one, places, line=dict(color=colour, width=2.2, dash=DASHES[dash]))
    mean.update(mode="lines+markers" if lone else "lines", marker=dict(symbol=MARKERS[marker], size=6))
    return [*_band(one, colour, places), *_runs(chart, one, look, width=0.8, opacity=0.35), mean]


def _points(chart: Chart, one: Series, look: Style, shift: float) -> list[Trace]:
    colour, dash, marker = look
    mean = _mean(chart, one, [plotly_axes.place(chart, x) + shift for x in one.x], line=dict(color=colour, width=1.6))
    mean.update(
        mode="lines+markers" if chart.joined else "markers",
        line_dash=DASHES[dash],
        marker=dict(symbol=MARKERS[marker], size=8, color=colour),
        error_y=_reach(one, colour),
    )
    return [_dots(chart, one, colour, shift), mean]


def _bars(chart: Chart, one: Series, look: Style, shift: float) -> list[Trace]:
    mean = _mean(chart, one, [x + shift for x in one.x], go.Bar)
    mean.update(
        width=0.92 * plotly_axes.step(chart),
        marker=dict(color=look[0], opacity=0.75),
        error_y=_reach(one, plotly_axes.PALE),
    )
    return [mean, _dots(chart, one, plotly_axes.PALE, shift)]


def _level(chart: Chart, one: Series, look: Style) -> list[Trace]:
    """A horizontal line across the chart, with enough points to react to the pointer everywhere."""
    low, high = plotly_axes.extent(chart)
    places = [low + (high - low) * i / (STOPS - 1) for i in range(STOPS)]
    x, mean_of, bottom, top = (each[:1] * STOPS for each in (one.x, one.mean, one.low, one.high))
    across = Series(one.name, x, mean_of, bottom, top, ())
    mean = _mean(chart, across, places, line=dict(color=look[0], width=1.6, dash=DASHES[look[1]]), mode="lines")
    mean.update(hovertemplate=mean.hovertemplate.replace(AT, ""))
    return [*_band(across, look[0], places), mean]


FORMS: dict[str, Callable[[Chart, Series, Style, float], list[Trace]]] = {
    "curve": _curve,
    "points": _points,
    "bars": _bars,
}
AT = "<br>at %{customdata[0]}"


def _mean(chart: Chart, one: Series, places: Sequence[float], kind: Any = go.Scatter, **look: Any) -> Trace:
    between = [f" [{a:.2f}, {b:.2f}]" if math.isfinite(a) else "" for a, b in zip(one.low, one.high, strict=True)]
    return kind(
        x=[_short(x) for x in places],
        y=[_short(y) for y in one.mean],
        customdata=[[plotly_axes.name_of(chart, x), text] for x, text in zip(one.x, between, strict=True)],
        hovertemplate=f"<b>%{{y:.2f}}</b>%{{customdata[1]}}{AT}<extra>{plotly_axes.plain(one.name)}, mean</extra>",
        legendgroup=one.name,
        **look,
    )


def _runs(chart: Chart, one: Series, look: Style, width: float, opacity: float) -> list[Trace]:
    """A line for each run.  On a linear axis plotly formats x itself, which keeps the data of long curves small."""
    plain = chart.scale == "linear" and not chart.ticks
    at = "<br>at %{x:.6~g}" if plain else AT
    return [
        go.Scatter(
            x=[_short(plotly_axes.place(chart, x)) for x in line.x],
            y=[_short(y) for y in line.y],
            mode="lines" if len(line.x) > 1 else "markers",
            line=dict(color=look[0], width=width, dash=DASHES[look[1]]),
            marker=dict(color=look[0], size=5),
            opacity=opacity,
            customdata=None if plain else [[plotly_axes.name_of(chart, x)] for x in line.x],
            hovertemplate=f"<b>%{{y:.2f}}</b>{at}<extra>{plotly_axes.plain(run_name(one, line))}</extra>",
            legendgroup=one.name,
            meta=run_name(one, line),
        )
        for line in one.lines
    ]


def _dots(chart: Chart, one: Series, colour: str, shift: float) -> Trace:
    """A dot for each run of a series at each x."""
    points = [(x, y, line.seed) for line in one.lines for x, y in zip(line.x, line.y, strict=True)]
    return go.Scatter(
        x=[_short(plotly_axes.place(chart, x) + shift) for x, _, _ in points],
        y=[_short(y) for _, y, _ in points],
        mode="markers",
        marker=dict(color=colour, size=5, opacity=0.5),
        customdata=[[plotly_axes.name_of(chart, x), seed] for x, _, seed in points],
        hovertemplate=f"<b>%{{y:.2f}}</b>{AT}<extra>{plotly_axes.plain(one.name)}, seed %{{customdata[1]}}</extra>",
        legendgroup=one.name,
    )


def _band(one: Series, colour: str, places: Sequence[float]) -> list[Trace]:
    """The interval as an area; empty if there is none."""
    ends = [each for each in zip(places, one.low, one.high, strict=True) if math.isfinite(each[1])]
    if not ends:
        return []
    x, low, high = ([_short(each[i]) for each in ends] for i in range(3))
    return [
        go.Scatter(
            x=x + x[::-1],
            y=high + low[::-1],
            fill="toself",
            mode="none",
            fillcolor=f"rgba({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:7], 16)}, 0.15)",
            hoverinfo="skip",
            legendgroup=one.name,
        )
    ]


def _reach(one: Series, colour: str) -> dict[str, Any]:
    """Error bars from the mean to both ends of its interval."""
    up, down = (
        [_short(abs(end - mean)) for end, mean in zip(ends, one.mean, strict=True)] for ends in (one.high, one.low)
    )
    return dict(array=up, arrayminus=down, color=colour, thickness=1.4, width=4)


def _short(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
