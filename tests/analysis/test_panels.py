"""Charts as parts of a page: what a reader and the script of the page find there."""

import json
import re

from plasticity_jax.analysis.plots import plotly_backend, spec
from plasticity_jax.analysis.plots.spec import Chart
from plasticity_jax.analysis.report import panels
from tests.analysis.test_page import NASTY, Reader

FRESH = spec.series("fresh", {0: {1.0: 30.0}, 1: {1.0: 32.0}}, "fresh")
WARM = spec.series(NASTY, {0: {1.0: 30.0}}, "warm")


def chart(**changed):
    given = {"name": "curves", "title": "a < b", "about": "digits", "x_label": "epochs", "y_label": "accuracy (%)"}
    return Chart(**{**given, "series": (FRESH, WARM), "form": "curve", **changed})


def test_a_panel_has_title_caption_key_and_data():
    made = panels.panel(chart(window=(8.0, 10.0)))
    read = Reader(made)
    assert "a < b" in read.text and "digits" in read.text and "metric: last 20%" in read.text
    assert [seen["data-name"] for name, seen in read.tags if name == "button"] == ["fresh", NASTY]
    assert [seen["stroke"] for name, seen in read.tags if name == "line"] == [
        c for _, c, _ in plotly_backend.key(chart())
    ]
    (figure,) = re.findall(r'<script type="application/json">(.*?)</script>', made, re.DOTALL)
    drawn = json.loads(figure)
    assert drawn["data"] == json.loads(json.dumps(plotly_backend.figure(chart()).to_plotly_json()["data"]))
    assert drawn["layout"]["shapes"]


def test_a_panel_without_a_window_does_not_name_one():
    assert "metric" not in Reader(panels.panel(chart())).text


def test_every_run_is_in_the_list_and_in_full():
    choice, figures = panels.every_run([chart(), chart(y_label="train accuracy (%)")])
    assert [seen.get("value") for name, seen in Reader(choice).tags if name == "option"] == [
        "",
        "fresh, seed 0",
        "fresh, seed 1",
        f"{NASTY}, seed 0",
    ]
    assert figures.count("<figure") == 2
    assert "train accuracy (%)" in Reader(figures).text
    assert ", mean" not in figures


def test_without_a_run_there_is_a_word_instead():
    assert "evaluated yet" in panels.every_run([])[0]
