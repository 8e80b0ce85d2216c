"""The axes of a chart in plotly: positions, ticks and marks.

Plotly has no symlog axis.  So its x axis is always linear here; positions are transformed and ticks are labelled.
"""

import html
import itertools
import math
import textwrap
from typing import Any

import plotly.graph_objects as go

from plasticity_jax.analysis.plots.spec import Chart, written

INK, PALE, WINDOW = "#333333", "#8a8f98", "#2ca02c"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
LETTERS = 48  # letters in a line of an axis title, for narrow windows
CROWD = 0.045  # smallest distance between ticks, as a fraction of the axis
APART = 0.02  # distance between series with the same x, as a fraction of the axis


def layout(chart: Chart) -> go.Layout:
    """The axes and marks of a chart, with colours for light and dark pages."""
    axis = dict(gridcolor="rgba(128, 128, 128, 0.2)", zeroline=False, ticks="", automargin=True)
    return go.Layout(
        template={},
        font=dict(family=FONT, size=12.5, color=INK),
        margin=dict(l=52, r=12, t=10, b=44),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        hoverlabel=dict(namelength=-1, font=dict(family=FONT, size=13)),
        showlegend=False,
        barmode="overlay",
        shapes=_marks(chart),
        xaxis={
            **axis,
            **_named_ticks(chart),
            "ticklabeloverflow": "allow",
            "title": _title(chart.x_label),
            "range": extent(chart),
        },
        yaxis={
            **axis,
            "title": _title(chart.y_label),
            "range": chart.view,
            "rangemode": "tozero" if chart.zero else "normal",
        },
    )


def place(chart: Chart, x: float) -> float:
    """The position of x on plotly's linear axis.  Symlog is linear up to 1; then each decade has length 1."""
    if chart.scale == "log":
        return math.log10(x)
    if chart.scale == "symlog" and abs(x) > 1:
        return math.copysign(1 + math.log10(abs(x)), x)
    return x


def measured(chart: Chart) -> list[float]:
    """Every x with data, sorted."""
    places = {x for x, _ in chart.ticks}
    for one in chart.series:
        if not one.level:
            places.update(one.x, *(line.x for line in one.lines))
    return sorted(places)


def extent(chart: Chart) -> tuple[float, float]:
    """The range of the x axis: all data with a margin, which is half a step if ticks are given."""
    places = sorted(place(chart, x) for x in (*measured(chart), *(chart.window or ()))) or [0.0]
    steps = [b - a for a, b in itertools.pairwise(sorted(place(chart, x) for x, _ in chart.ticks))]
    share = 0.02 if chart.form == "curve" else 0.07
    air = max(share * (places[-1] - places[0]), 0.5 * min(steps, default=0.0)) or 0.5
    return places[0] - air, places[-1] + air


def step(chart: Chart) -> float:
    """The distance between series with the same x; 0 if no two series share an x."""
    shown = [one for one in chart.series if not one.level]
    if chart.form == "bars":
        return 0.8 / max(len(shown), 1)
    crowded = chart.form == "points" and len(measured(chart)) < sum(len(one.x) for one in shown)
    return APART * (extent(chart)[1] - extent(chart)[0]) if crowded else 0.0


def ticks(chart: Chart) -> list[tuple[float, str]]:
    """Positions and labels of the ticks; empty to let plotly choose."""
    if chart.ticks:
        return [(place(chart, x), name) for x, name in chart.ticks]
    if chart.scale == "linear" and chart.form != "points":
        return []
    low, high = extent(chart)
    kept: list[tuple[float, str]] = []
    for x in measured(chart):
        if not kept or place(chart, x) - kept[-1][0] >= CROWD * (high - low):
            kept.append((place(chart, x), written(x)))
    return kept


def name_of(chart: Chart, x: float) -> str:
    """The label of an x, escaped for plotly."""
    return plain(dict(chart.ticks).get(x, written(x)))


def plain(text: str) -> str:
    """Text escaped for plotly, which interprets some HTML tags, and braces in templates."""
    return html.escape(text, quote=False).replace("{", "&#123;")


def _marks(chart: Chart) -> list[dict[str, Any]]:
    line = dict(color=PALE, width=1)
    shapes: list[dict[str, Any]] = []
    if chart.window:
        low, high = (place(chart, x) for x in chart.window)
        area = dict(layer="below", line_width=0, fillcolor=WINDOW, opacity=0.12)
        shapes.append(dict(type="rect", x0=low, x1=high, yref="paper", y0=0, y1=1, **area))
    for x in (*([0.0] if chart.origin else []), *chart.marks):
        at = place(chart, x)
        shapes.append(dict(type="line", x0=at, x1=at, yref="paper", y0=0, y1=1, line={**line, "dash": "dot"}))
    if chart.zero:
        shapes.append(dict(type="line", xref="paper", x0=0, x1=1, y0=0, y1=0, line=line))
    return shapes


def _named_ticks(chart: Chart) -> dict[str, Any]:
    found = ticks(chart)
    names = [plain(name).replace(" ", "<br>") for _, name in found]
    return dict(tickvals=[at for at, _ in found], ticktext=names) if found else {}


def _title(text: str) -> dict[str, Any]:
    return dict(text="<br>".join(map(plain, textwrap.wrap(text, LETTERS))), standoff=8, font_size=12.5)
