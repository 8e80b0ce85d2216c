"""Draws charts with matplotlib.

    matplotlib_backend.save(figures.charts(study), "pictures")        writes pictures/NAME.png and pictures/NAME.svg

Thick lines and marks are means over seeds, thin lines and dots are single seeds, bands and error bars 95% intervals.
"""

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from plasticity_jax.analysis.plots.spec import Chart, Series, written

COLOURS = {"fresh": "#0072B2", "warm": "#D55E00", "shared": "#777777"}  # by role
OTHERS = [
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
]  # distinguishable from each other and from those above with colour blindness
ORDER = ["fresh", "warm", "other", "shared"]  # of the roles in the legend
DASHES = ["-", "--", ":", "-."]  # for series of one role
MARKERS = ["o", "s", "^", "D", "v", "P"]
SIZE = (7.4, 5.0)  # inches
# Metadata for each kind of file, without dates, so that files are reproducible.
FORMATS: dict[str, dict[str, Any]] = {"png": {"pil_kwargs": {"optimize": True}}, "svg": {"metadata": {"Date": None}}}
LETTERS = {"title": 86, "about": 108, "ticks": 90}  # in a line
MOST_TICKS = 14
LARGE = 10_000  # from which the numbers of an axis have separators
CROWD = 0.045  # smallest distance between numeric ticks, as a fraction of the axis
APART, ASIDE = 11.0, 5.0  # points between series that have the same x, and between a mean and its seeds

Style = tuple[str, str, str]  # colour, dash and marker


def draw(chart: Chart) -> Figure:
    """A figure of one chart."""
    figure = Figure(figsize=SIZE, layout="constrained")
    title = chart.title.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    headline = [line for part in title.split("; ") for line in textwrap.wrap(part, LETTERS["title"])]
    figure.suptitle("\n".join(headline), x=0.01, ha="left", size=10.5, weight="bold")
    axes = figure.add_subplot()
    axes.set_title("\n".join(textwrap.wrap(chart.about, LETTERS["about"])), loc="left", fontsize=8, color="#444444")
    look = styles(chart.series)
    shown = [one for one in chart.series if not one.level]
    {"curve": _curves, "points": _points, "bars": _bars}[chart.form](axes, chart, shown, look)
    for one in chart.series:
        if one.level and one.x:
            axes.axhline(one.mean[0], color=look[one.name][0], linewidth=1.2, label=one.name, zorder=1)
            if math.isfinite(one.low[0]):
                axes.axhspan(one.low[0], one.high[0], color=look[one.name][0], alpha=0.12, linewidth=0, zorder=0)
    if chart.window:
        share = (chart.window[1] - chart.window[0]) / chart.window[1]
        axes.axvspan(
            *chart.window, color="#2CA02C", alpha=0.12, linewidth=0, label=f"metric: last {share:.0%}", zorder=0
        )
    if chart.origin:
        axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":")
    for x in chart.marks:
        axes.axvline(x, color="#999999", linewidth=0.8, linestyle=":")
    if chart.zero:
        axes.axhline(0, color="#555555", linewidth=0.8, zorder=1)
    _frame(axes, chart)
    handles, names = axes.get_legend_handles_labels()
    roles = {one.name: ORDER.index(one.role) for one in chart.series}
    legend = dict(sorted(zip(names, handles, strict=True), key=lambda each: roles.get(each[0], len(ORDER))))
    columns = max(1, min(len(legend), 4, 88 // (max(map(len, legend), default=1) + 6)))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    return figure


def save(charts: Sequence[Chart], folder: str | os.PathLike[str]) -> list[Path]:
    """Write `NAME.png` and `NAME.svg` of each chart; the same charts give the same bytes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "plasticity_jax"}):
        for chart in charts:
            figure = draw(chart)
            for ending in FORMATS:
                written.append(Path(folder) / f"{chart.name}.{ending}")
                figure.savefig(written[-1], dpi=150, **FORMATS[ending])
    return written


def styles(series: Sequence[Series]) -> dict[str, Style]:
    """The style of each series by name: its role sets the colour, its place within the role the dash and the marker."""
    names: dict[str, list[str]] = {}
    for one in series:
        if one.name not in names.setdefault(one.role, []):
            names[one.role].append(one.name)
    others = len(names.get("other", ()))
    many = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, others))
    palette = OTHERS if others <= len(OTHERS) else [matplotlib.colors.to_hex(each) for each in many]
    return {
        name: (palette[i], "-", MARKERS[i % len(MARKERS)])
        if role == "other"
        else (COLOURS[role], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for role, members in names.items()
        for i, name in enumerate(members)
    }


def _curves(axes: Axes, chart: Chart, shown: Sequence[Series], look: dict[str, Style]) -> None:
    for one in shown:
        colour, dash, _ = look[one.name]
        for line in one.lines:
            axes.plot(line.x, line.y, color=colour, linewidth=0.7, alpha=0.35)
        marker = "o" if len(one.x) == 1 else ""
        if one.x:
            axes.plot(one.x, one.mean, dash, marker=marker, color=colour, linewidth=1.8, label=one.name)
            axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.15, linewidth=0)


def _points(axes: Axes, chart: Chart, shown: Sequence[Series], look: dict[str, Style]) -> None:
    crowded = len({x for one in shown for x in one.x}) < sum(len(one.x) for one in shown)
    for i, one in enumerate(shown):
        colour, dash, marker = look[one.name]
        shift = APART * (i - (len(shown) - 1) / 2) if crowded else 0.0
        at, beside = (
            axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
            for points in (shift, shift - ASIDE)
        )
        for line in one.lines:
            axes.plot(line.x, line.y, ".", color=colour, markersize=6, alpha=0.6, markeredgewidth=0, transform=beside)
        form: dict[str, Any] = {
            "fmt": marker + (dash if chart.joined else ""),
            "color": colour,
            "label": one.name,
            "transform": at,
        }
        axes.errorbar(one.x, one.mean, _reach(one), **form, markersize=5, linewidth=1.3, capsize=3)
    # Axes ignore points that are shifted by a transform, so limits are set here.
    values = [y for one in chart.series for line in one.lines for y in line.y]
    values += [y for one in chart.series for y in (*one.mean, *one.low, *one.high) if math.isfinite(y)]
    low, high = min(values + [0.0] * chart.zero), max(values + [0.0] * chart.zero)
    air = max(0.06 * (high - low), 0.05)
    axes.set_ylim(low - air, high + air)
    axes.set_xscale(chart.scale, **({"linthresh": 1} if chart.scale == "symlog" else {}))
    places = axes.xaxis.get_transform().transform([x for one in shown for x in one.x])
    edge = (0.06 + 0.015 * len(shown)) * float(np.ptp(places)) or 0.5
    ends = np.array([places.min() - edge, places.max() + edge])
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(ends))


def _bars(axes: Axes, chart: Chart, shown: Sequence[Series], look: dict[str, Style]) -> None:
    width = 0.8 / max(len(shown), 1)
    for i, one in enumerate(shown):
        colour, shift = look[one.name][0], width * (i - (len(shown) - 1) / 2)
        x = np.asarray(one.x) + shift
        axes.bar(x, one.mean, 0.92 * width, color=colour, alpha=0.75, label=one.name)
        axes.errorbar(x, one.mean, _reach(one), fmt="none", ecolor="#222222", capsize=2, linewidth=1)
        for line in one.lines:
            axes.plot(np.asarray(line.x) + shift, line.y, ".", color="#222222", markersize=3, alpha=0.5)


def _frame(axes: Axes, chart: Chart) -> None:
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    measured = sorted({x for one in chart.series if not one.level for x in one.x})
    ticks = list(chart.ticks) or ([(x, written(x)) for x in _apart(axes, measured)] if chart.form == "points" else [])
    if 0 < len(ticks) <= MOST_TICKS or chart.ticks:
        crowded = sum(len(name) + 2 for _, name in ticks) > LETTERS["ticks"]
        tilt: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks([x for x, _ in ticks], [name for _, name in ticks], **tilt)
        axes.minorticks_off()
    elif chart.scale == "linear" and all(x == int(x) for x in measured):  # epochs and tasks have no halves
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    if chart.view:
        axes.set_ylim(*chart.view)
    for axis in [axes.yaxis] + [axes.xaxis] * (chart.scale == "linear" and not ticks):
        if max(map(abs, axis.get_view_interval())) >= LARGE:
            axis.set_major_formatter(FuncFormatter(lambda x, _: written(x).replace("-", "\N{MINUS SIGN}")))
    if chart.form != "points":
        axes.margins(x=0.02)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(axes: Axes, places: Sequence[float]) -> list[float]:
    """The places without those whose labels would overlap with the one before."""
    transform = axes.xaxis.get_transform().transform
    low, high = transform(np.asarray(axes.get_xlim()))
    kept: list[float] = []
    for x in places:
        if not kept or transform(x) - transform(kept[-1]) >= CROWD * (high - low):
            kept.append(x)
    return kept


def _reach(one: Series) -> np.ndarray:
    """[2, N]: the distances from the mean to the lower and the upper end of its interval."""
    mean = np.asarray(one.mean)
    return np.stack([mean - np.asarray(one.low), np.asarray(one.high) - mean])
