"""HTML for charts in a page.

    panels.panel(chart)               means and intervals, as in the figures of `analysis.figures`
    panels.every_run(charts)          every run, and a list to select one

Each chart has a title, a caption, a legend, and the data that plotly draws when the page is opened.
"""

from collections.abc import Sequence

from plasticity_jax.analysis.plots import plotly_backend
from plasticity_jax.analysis.plots.spec import Chart
from plasticity_jax.analysis.report.page import Html, data, tag

APART = {"solid": "", "dash": "6 3", "dot": "2 3", "dashdot": "7 3 2 3"}  # dashes of a line in a legend


def panel(chart: Chart, runs: bool = False) -> Html:
    """A chart with title, caption and legend; plotly draws it when the page is opened."""
    window = chart.window and f"metric: last {(chart.window[1] - chart.window[0]) / chart.window[1]:.0%}"
    entries = [
        tag("button", _stroke(colour, dash), name, type="button", aria_pressed="true", data_name=name)
        for name, colour, dash in plotly_backend.key(chart)
    ]
    still = tag("span", tag("i", class_="box"), window, class_="still") if window else None
    caption = [tag("strong", chart.y_label if runs else chart.title), tag("span", chart.about)]
    return tag(
        "figure",
        tag("figcaption", *caption),
        tag("div", *entries, still, class_="key"),
        tag("div", class_="plot", role="img", aria_label=chart.title),
        data(plotly_backend.figure(chart, runs).to_plotly_json()),
        data_chart=chart.name,
    )


def every_run(charts: Sequence[Chart]) -> list[Html]:
    """Charts with every run, and a list that highlights one of the runs in all of them."""
    shown = (one for chart in charts for one in chart.series)
    runs = dict.fromkeys(plotly_backend.run_name(one, line) for one in shown for line in one.lines)
    if not runs:
        return [tag("p", "No run has been evaluated yet.", class_="note")]
    options = [tag("option", "all runs", value=""), *(tag("option", run, value=run) for run in runs)]
    choice = tag("label", "highlight ", tag("select", *options, data_runs=True), class_="pick")
    panels = tag("div", *(panel(chart, runs=True) for chart in charts), class_="charts")
    return [choice, panels]


def _stroke(colour: str, dash: str) -> Html:
    line = tag("line", x1=0, x2=24, y1=5, y2=5, stroke=colour, stroke_width=3, stroke_dasharray=APART[dash] or None)
    return tag("svg", line, viewBox="0 0 24 10", aria_hidden="true")
