"""Charts as plotly figures: what is drawn where, and the text below the pointer."""

import json
import math

import pytest

from plasticity_jax.analysis.plots import plotly_backend, spec
from plasticity_jax.analysis.plots.spec import Chart

SEEDS = {0: {1.0: 30.0, 10.0: 34.0}, 1: {1.0: 32.0, 10.0: 36.0}}
LOW, HIGH = spec.series("", SEEDS).low, spec.series("", SEEDS).high  # the interval at each x


def chart(*series, **changed):
    given = {"series": series or (spec.series("fresh", SEEDS, "fresh"),), "form": "curve", "x_label": "epochs"}
    return Chart(name="name", title="title", about="about", y_label="accuracy (%)", **{**given, **changed})


def drawn(chart, **how):
    """The figure as plotly.js receives it."""
    return json.loads(json.dumps(plotly_backend.figure(chart, **how).to_plotly_json(), allow_nan=False))


def traces(chart, **how):
    return drawn(chart, **how)["data"]


def said(trace, point=0):
    """The text that plotly.js makes of the hover template at a point, without number formats."""
    text = trace["hovertemplate"]
    for i, value in enumerate(trace["customdata"][point] if "customdata" in trace else ()):
        text = text.replace(f"%{{customdata[{i}]}}", str(value))
    return text


def means(data):
    return [trace for trace in data if "mean</extra>" in trace.get("hovertemplate", "")]


def runs(data):
    return [trace for trace in data if "seed" in trace.get("hovertemplate", "")]


def test_a_curve_has_a_mean_a_band_and_a_thin_line_for_each_run():
    band, *lines, mean = traces(chart())
    assert (mean["x"], mean["y"]) == ([1.0, 10.0], [31.0, 35.0])
    assert [line["y"] for line in lines] == [[30.0, 34.0], [32.0, 36.0]]
    assert all(line["line"]["width"] < mean["line"]["width"] for line in lines)
    assert band["fill"] == "toself"
    assert band["x"] == [1.0, 10.0, 10.0, 1.0]
    assert band["y"] == pytest.approx([HIGH[0], HIGH[1], LOW[1], LOW[0]], abs=1e-3)


def test_a_series_of_one_run_has_no_band():
    data = traces(chart(spec.series("fresh", {0: SEEDS[0]})))
    assert not [trace for trace in data if trace.get("fill")]
    assert "[" not in said(means(data)[0]).replace("customdata[", "")


def test_runs_and_means_tell_what_they_are():
    data = traces(chart())
    assert said(means(data)[0]) == f"<b>%{{y:.2f}}</b> [{LOW[0]:.2f}, {HIGH[0]:.2f}]<br>at 1<extra>fresh, mean</extra>"
    assert [said(trace) for trace in runs(data)] == [
        f"<b>%{{y:.2f}}</b><br>at %{{x:.6~g}}<extra>fresh, seed {seed}</extra>" for seed in (0, 1)
    ]
    assert {trace["legendgroup"] for trace in data} == {"fresh"}
    assert [trace["meta"] for trace in runs(data)] == ["fresh, seed 0", "fresh, seed 1"]


def test_every_run_in_full_leaves_means_and_levels_out():
    level = spec.series("level", {0: {0.0: 33.0}, 1: {0.0: 34.0}}, level=True)
    data = traces(chart(spec.series("fresh", SEEDS), level), runs=True)
    assert [trace["meta"] for trace in data] == ["fresh, seed 0", "fresh, seed 1"]
    assert all(trace["line"]["width"] > 1 and trace["opacity"] > 0.5 for trace in data)


def test_points_have_error_bars_and_a_dot_for_each_run():
    dots, mean = traces(chart(form="points"))
    assert mean["error_y"]["array"][0] == pytest.approx(HIGH[0] - 31.0, abs=1e-3)
    assert mean["error_y"]["arrayminus"][0] == pytest.approx(31.0 - LOW[0], abs=1e-3)
    assert mean["mode"] == "lines+markers"
    assert sorted(zip(dots["x"], dots["y"], strict=True)) == [(1.0, 30.0), (1.0, 32.0), (10.0, 34.0), (10.0, 36.0)]
    assert {said(dots, i)[-23:] for i in range(4)} == {f"<extra>fresh, seed {seed}</extra>"[-23:] for seed in (0, 1)}


def test_points_that_are_not_joined_have_no_line():
    assert means(traces(chart(form="points", joined=False)))[0]["mode"] == "markers"


def test_series_at_the_same_x_stand_apart_but_say_the_same_x():
    two = (spec.series("a", SEEDS, "fresh"), spec.series("b", SEEDS, "warm"))
    a, b = means(traces(chart(*two, form="points")))
    assert a["x"][0] < 1.0 < b["x"][0]
    assert "at 1<" in said(a) and "at 1<" in said(b)


def test_bars_stand_side_by_side_from_zero():
    two = (spec.series("a", {0: {0.0: 3.0}}), spec.series("b", {0: {0.0: 4.0}}))
    figure = drawn(chart(*two, form="bars", ticks=((0.0, "mlp sgd"),)))
    a, b = means(figure["data"])
    assert (a["type"], a["y"], b["y"]) == ("bar", [3.0], [4.0])
    assert a["x"][0] + a["width"] / 2 <= b["x"][0] - b["width"] / 2
    assert figure["layout"]["xaxis"]["ticktext"] == ["mlp<br>sgd"]
    assert "at mlp sgd<" in said(a)


def test_a_level_goes_across_the_whole_chart():
    level = spec.series("control", {0: {0.0: 33.0}, 1: {0.0: 35.0}}, "fresh", level=True)
    figure = drawn(chart(spec.series("warm", SEEDS, "warm"), level, form="points"))
    (line,) = [trace for trace in means(figure["data"]) if trace["legendgroup"] == "control"]
    assert set(line["y"]) == {34.0}
    assert [line["x"][0], line["x"][-1]] == pytest.approx(figure["layout"]["xaxis"]["range"], abs=1e-3)
    assert said(line).endswith("]<extra>control, mean</extra>")
    (band,) = [trace for trace in figure["data"] if trace.get("fill")]
    assert min(band["y"]) < 34.0 < max(band["y"])


def test_curves_over_another_scale_say_the_same_x():
    data = traces(chart(scale="log"))
    assert [trace["x"] for trace in [*means(data), *runs(data)]] == [[0.0, 1.0]] * 3
    assert {said(trace, 1).partition("<extra>")[0][-3:] for trace in [*means(data), *runs(data)]} == {" 10"}
    assert [trace["fill"] and trace["x"] for trace in data if "fill" in trace] == [[0.0, 1.0, 1.0, 0.0]]


def test_what_is_not_finite_is_left_out_of_the_json():
    broken = spec.series("a", {0: {1.0: 5.0, 2.0: math.nan}})
    assert runs(traces(chart(broken)))[0]["y"] == [5.0, None]


def test_names_are_text():
    nasty = "<b>%{y}</b>"
    figure = drawn(chart(spec.series(nasty, SEEDS), x_label=nasty))
    escaped = "&lt;b&gt;%&#123;y}&lt;/b&gt;"
    assert f"<extra>{escaped}, mean</extra>" in means(figure["data"])[0]["hovertemplate"]
    assert f"<extra>{escaped}, seed 0</extra>" in runs(figure["data"])[0]["hovertemplate"]
    assert figure["layout"]["xaxis"]["title"]["text"] == escaped
    assert means(figure["data"])[0]["legendgroup"] == nasty  # what scripts compare


def test_the_key_names_each_branch_once_in_its_colour():
    stages = (spec.series("fresh", SEEDS, "fresh"), spec.series("warm", SEEDS, "warm"))
    key = plotly_backend.key(chart(*stages, spec.series("warm", {0: {-1.0: 3.0}}, "warm")))
    assert [name for name, _, _ in key] == ["fresh", "warm"]
    colours = {trace["legendgroup"]: trace["line"]["color"] for trace in means(traces(chart(*stages)))}
    assert {name: colour for name, colour, _ in key} == colours
    assert {dash for _, _, dash in key} == {"solid"}
