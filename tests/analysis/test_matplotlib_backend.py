"""What matplotlib draws of a chart, and that its files are the same each time."""

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from plasticity_jax.analysis.plots import matplotlib_backend, spec
from plasticity_jax.analysis.plots.spec import Chart

RUNS = {0: {1.0: 4.0, 3.0: 5.0}, 1: {1.0: 5.0, 3.0: 6.0}, 2: {1.0: 6.0, 3.0: 7.0}}
FRESH = spec.series("fresh", RUNS, "fresh")
WARM = spec.series("warm", {seed: {x: y - 3 for x, y in run.items()} for seed, run in RUNS.items()}, "warm")
LEVEL = spec.level("replacement", {0: 8.0, 1: 9.0, 2: 10.0}, "shared")
CURVES = Chart("curves", "fresh: better", "digits, 3 seeds", "epochs", "accuracy (%)", (FRESH, WARM), form="curve")
POINTS = dataclasses.replace(CURVES, name="points", form="points", series=(FRESH, WARM, LEVEL))
BARS = dataclasses.replace(CURVES, name="bars", form="bars", ticks=((1.0, "one"), (3.0, "three")))


def named(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_curves_have_thin_runs_thick_means_and_bands():
    figure = matplotlib_backend.draw(dataclasses.replace(CURVES, window=(2.0, 3.0), origin=True, view=(0.0, 9.0)))
    (axes,) = figure.axes
    means = [line for line in axes.lines if line.get_linewidth() == 1.8]
    assert [list(line.get_ydata()) for line in means] == [[5, 6], [2, 3]]
    assert [to_hex(line.get_color()).upper() for line in means] == [
        matplotlib_backend.COLOURS["fresh"],
        matplotlib_backend.COLOURS["warm"],
    ]
    assert [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 0.7][:3] == [
        [4, 5],
        [5, 6],
        [6, 7],
    ]
    bands = [band.get_paths()[0].get_extents() for band in axes.collections]
    assert [(band.y0, band.y1) for band in bands] == [pytest.approx((s.low[0], s.high[1])) for s in (FRESH, WARM)]
    (box,) = axes.patches
    assert (box.get_x(), box.get_width()) == (2.0, 1.0)
    assert named(figure) == ["fresh", "warm", "metric: last 33%"]
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)  # the origin
    assert axes.get_ylim() == (0.0, 9.0)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == (
        "epochs",
        "accuracy (%)",
        "digits, 3 seeds",
    )
    assert figure.get_suptitle() == "fresh: better"


def test_epochs_and_tasks_have_no_halves():
    run = dict.fromkeys(map(float, range(1, 21)), 1.0)
    chart = dataclasses.replace(CURVES, series=(spec.series("fresh", {0: run}, "fresh"),))
    assert list(matplotlib_backend.draw(chart).axes[0].get_xticks()) == [0, 5, 10, 15, 20, 25]
    halves = dataclasses.replace(chart, series=(spec.series("fresh", {0: run | {1.5: 1.0}}, "fresh"),))
    assert 2.5 in matplotlib_backend.draw(halves).axes[0].get_xticks()


def test_numbers_on_an_axis_do_not_overlap():
    steps = dict.fromkeys((0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 800.0, 820.0, 840.0), 1.0)
    run = spec.series("fresh", {0: steps}, "fresh")
    for scale, expected in (("symlog", [0, 1, 4, 16, 64, 256, 800]), ("linear", [0, 64, 256, 800])):
        chart = dataclasses.replace(CURVES, form="points", scale=scale, series=(run,))
        assert list(matplotlib_backend.draw(chart).axes[0].get_xticks()) == expected


def test_large_numbers_have_separators_and_no_exponents():
    places = {0.0: -1e5, 2000.0: 0.0, 1.5e7: 1e5}
    chart = dataclasses.replace(CURVES, series=(spec.series("fresh", {0: places}, "fresh"),))
    for form in ("curve", "points"):
        figure = matplotlib_backend.draw(dataclasses.replace(chart, form=form))
        figure.canvas.draw()
        axes = figure.axes[0]
        shown = [label.get_text() for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()]
        assert "100,000" in shown and "\N{MINUS SIGN}100,000" in shown
        assert any(text.endswith(",000,000") for text in shown) and not [text for text in shown if "e" in text]


def test_series_of_one_name_share_colour_and_entry():
    before = dataclasses.replace(WARM, x=(-2.0, -1.0))
    figure = matplotlib_backend.draw(dataclasses.replace(CURVES, series=(before, FRESH, WARM)))
    assert named(figure) == ["fresh", "warm"]
    means = [line for line in figure.axes[0].lines if line.get_linewidth() == 1.8]
    assert means[0].get_color() == means[2].get_color() != means[1].get_color()


def test_points_have_error_bars_and_their_runs_beside():
    figure = matplotlib_backend.draw(POINTS)
    (axes,) = figure.axes
    bars = list(axes.containers)
    assert [list(bar[0].get_ydata()) for bar in bars] == [[5, 6], [2, 3]]
    ends = [segment[:, 1] for segment in bars[0][2][0].get_segments()]
    assert np.allclose(ends, [(FRESH.low[i], FRESH.high[i]) for i in (0, 1)])
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [list(dot.get_ydata()) for dot in dots][:3] == [[4, 5], [5, 6], [6, 7]]
    (level,) = [line for line in axes.lines if line.get_label() == "replacement"]
    assert list(level.get_ydata()) == [9, 9]
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((LEVEL.low[0], LEVEL.high[0]))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3"]
    assert axes.get_ylim()[0] < WARM.low[0] and axes.get_ylim()[1] > LEVEL.high[0]
    figure.draw_without_rendering()
    places = [bar[0].get_transform().transform((1.0, 0.0))[0] for bar in bars]
    assert places[1] - places[0] == pytest.approx(matplotlib_backend.APART / 72 * figure.dpi)


def test_points_may_stand_alone_and_show_zero():
    figure = matplotlib_backend.draw(dataclasses.replace(POINTS, series=(FRESH,), joined=False, zero=True))
    (axes,) = figure.axes
    assert axes.containers[0][0].get_linestyle() == "None"
    assert matplotlib_backend.draw(POINTS).axes[0].containers[0][0].get_linestyle() == "-"
    assert axes.get_ylim()[0] < 0 and any(list(line.get_ydata()) == [0, 0] for line in axes.lines)


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_the_scale_of_x(scale):
    figure = matplotlib_backend.draw(dataclasses.replace(POINTS, series=(FRESH,), scale=scale))
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    assert (low < 1 and 3 < high) and (scale != "log" or low > 0)


def test_bars_stand_side_by_side_on_zero():
    figure = matplotlib_backend.draw(BARS)
    (axes,) = figure.axes
    rectangles = axes.patches
    assert [patch.get_height() for patch in rectangles] == [5, 6, 2, 3]
    assert {patch.get_y() for patch in rectangles} == {0}
    assert rectangles[0].get_x() + rectangles[0].get_width() < rectangles[2].get_x()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one", "three"]
    assert named(figure) == ["fresh", "warm"]


@pytest.mark.parametrize("chart", [CURVES, POINTS, BARS], ids=lambda chart: chart.name)
def test_one_seed_has_no_interval_and_no_warning(chart, tmp_path):
    lone = tuple(spec.series(one.name, {0: dict.fromkeys(one.x, 1.0)}, one.role, one.level) for one in chart.series)
    assert all(math.isnan(low) for one in lone for low in one.low)
    assert len(matplotlib_backend.save([dataclasses.replace(chart, series=lone)], tmp_path)) == 2


@pytest.mark.parametrize("chart", [CURVES, POINTS, BARS], ids=lambda chart: chart.name)
def test_nothing_lies_over_the_axes(chart):
    long = dataclasses.replace(chart, title="; ".join(["an effect " * 12] * 2), about="a setting, " * 20)
    many = tuple(dataclasses.replace(one, name=f"{one.name}, depth {i}") for i in range(5) for one in chart.series)
    figure = matplotlib_backend.draw(dataclasses.replace(long, series=many))
    figure.draw_without_rendering()
    axes, (legend,) = figure.axes[0].get_window_extent(), figure.legends
    title = figure.texts[0].get_window_extent()
    assert legend.get_window_extent().y1 < axes.y0 and title.y0 > axes.y1
    assert all(0 <= each.x0 and each.x1 <= figure.bbox.x1 for each in (legend.get_window_extent(), title, axes))


def test_looks_differ_within_and_between_roles():
    roles = ["fresh", "fresh", "warm", "warm", "other", "other", "shared"]
    looks = matplotlib_backend.styles(
        [dataclasses.replace(FRESH, name=f"{i}", role=role) for i, role in enumerate(roles)]
    )
    assert len(set(looks.values())) == len(roles)
    assert looks["0"][0] == looks["1"][0] == matplotlib_backend.COLOURS["fresh"]
    assert looks["4"][0] != looks["5"][0]
    crowd = matplotlib_backend.styles([dataclasses.replace(FRESH, name=f"{i}", role="other") for i in range(12)])
    assert len({colour for colour, _, _ in crowd.values()}) == 12


@pytest.mark.slow
def test_files_are_whole_and_the_same_each_time(tmp_path):
    paths = matplotlib_backend.save([CURVES, POINTS], tmp_path / "one" / "deep")
    assert [path.name for path in paths] == ["curves.png", "curves.svg", "points.png", "points.svg"]
    assert imread(paths[0]).std() > 0.05
    text = paths[1].read_text()
    assert "fresh: better" in text and "accuracy (%)" in text  # letters, not their outlines
    again = matplotlib_backend.save([POINTS], tmp_path / "two")
    assert [path.read_bytes() for path in paths[2:]] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(("name", "turned"), [("stage {}", False), ("compressed-{}", True)])
def test_names_below_the_axis_are_turned_rather_than_overlap(name, turned):
    ticks = tuple((1 + x / 4, name.format(x)) for x in range(9))
    figure = matplotlib_backend.draw(dataclasses.replace(BARS, ticks=ticks))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(bool(label.get_rotation()) == turned for label in labels)
    assert turned or all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
