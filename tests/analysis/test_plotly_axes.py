"""The axes of a chart in plotly: places, names and marks."""

import pytest

from plasticity_jax.analysis.plots import plotly_axes, spec
from tests.analysis.test_plotly_backend import chart, drawn, means


@pytest.mark.parametrize(
    "scale, xs, places",
    [
        ("linear", [1.0, 10.0], [1.0, 10.0]),
        ("log", [1.0, 10.0, 1000.0], [0.0, 1.0, 3.0]),
        ("symlog", [0.0, 0.5, 1.0, 10.0, 100.0], [0.0, 0.5, 1.0, 2.0, 3.0]),
    ],
)
def test_scales_place_and_name_every_x(scale, xs, places):
    one = spec.series("a", {0: dict.fromkeys(xs, 1.0)})
    figure = drawn(chart(one, form="points", scale=scale))
    assert means(figure["data"])[0]["x"] == pytest.approx(places)
    axis = figure["layout"]["xaxis"]
    assert axis["tickvals"] == pytest.approx(places) and list(axis["ticktext"]) == [spec.written(x) for x in xs]
    assert [text[0] for text in means(figure["data"])[0]["customdata"]] == [spec.written(x) for x in xs]


def test_crowded_ticks_are_thinned():
    one = spec.series("a", {0: dict.fromkeys(map(float, range(101)), 1.0)})
    ticks = drawn(chart(one, form="points"))["layout"]["xaxis"]["tickvals"]
    assert 10 < len(ticks) < 30
    assert ticks[0] == 0.0


def test_window_origin_and_zero_are_marked():
    shapes = drawn(chart(window=(8.0, 10.0), origin=True, zero=True))["layout"]["shapes"]
    box, origin, zero = shapes
    assert (box["type"], box["x0"], box["x1"]) == ("rect", 8.0, 10.0)
    assert (origin["x0"], origin["x1"]) == (0.0, 0.0)
    assert (zero["y0"], zero["y1"]) == (0, 0)
    assert not drawn(chart())["layout"].get("shapes")


def test_the_view_is_the_y_axis():
    assert drawn(chart(view=(20.0, 40.0)))["layout"]["yaxis"]["range"] == [20.0, 40.0]
    assert "range" not in drawn(chart())["layout"]["yaxis"]


def test_a_long_label_of_an_axis_is_broken():
    text = drawn(chart(x_label="word " * 30))["layout"]["xaxis"]["title"]["text"]
    assert max(map(len, text.split("<br>"))) <= plotly_axes.LETTERS


def test_names_have_half_a_step_on_either_side():
    named = chart(form="points", ticks=((0.0, "a"), (2.0, "b")))
    assert drawn(named)["layout"]["xaxis"]["range"] == [-1.0, 11.0]  # the runs are at 1 and 10


def test_the_window_is_always_in_sight():
    low, high = drawn(chart(window=(8.0, 20.0)))["layout"]["xaxis"]["range"]
    assert low < 1.0 and 20.0 < high < 21.0
