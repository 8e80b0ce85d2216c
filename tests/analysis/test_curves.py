"""Learning curves as charts: where each stage lies, what its mean is, and which colour it has."""

import pytest

from plasticity_jax.analysis.plots import curves, spec
from plasticity_jax.analysis.plots.spec import Line
from plasticity_jax.configs.base import stage
from tests.support import tables

WARM = {"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}
TWO = {"pretrain": stage(data={"fraction": 0.5}, epochs=5.0), "tune": stage(epochs=10.0, branches=WARM)}


def level(label: str, seed: int) -> float:
    """A gap of 5, 6 and 7 points in the first three seeds."""
    return {"pretrain": 50.0 + seed, "fresh": 80.0 + seed}.get(label, 75.0)


def by_name(chart: spec.Chart) -> dict[str, list[spec.Series]]:
    named: dict[str, list[spec.Series]] = {}
    for series in chart.series:
        named.setdefault(series.name, []).append(series)
    return named


def spans(series: spec.Series) -> list[tuple[float, float]]:
    return [(line.x[0], line.x[-1]) for line in series.lines]


def test_pretraining_lies_before_zero(tmp_path):
    (chart,) = curves.learning(tables.write(tmp_path, tables.plan(**TWO), level))
    named = by_name(chart)
    (fresh,), (before, tuned) = named["fresh"], named["pretrain+tune"]
    assert set(named) == {"fresh", "pretrain+tune"}
    assert before.x == tuple(x / 2 - 5 for x in range(11)) and fresh.x == tuned.x == tuple(range(11))
    assert (fresh.mean[-1], tuned.mean[-1], before.mean[-1]) == (81.0, 75.0, 51.0)
    assert fresh.low[-1] == pytest.approx(81 - 2.484138, abs=1e-5)
    assert [fresh.role, before.role, tuned.role] == ["fresh", "warm", "warm"]
    assert [spans(one) for one in (fresh, before)] == [[(0, 10)] * 3, [(-5, 0)] * 3]
    assert [line.y[-1] for line in fresh.lines] == [80.0, 81.0, 82.0]
    assert (chart.form, chart.origin, chart.window, chart.name) == ("curve", True, (8.0, 10.0), "curves")
    assert chart.x_label == "training epochs (pretraining on negative values)"
    assert chart.title == "fresh \N{MINUS SIGN} pretrain+tune: 6.00 points (95% interval 3.52 to 8.48, n = 3)"
    low, high = chart.view
    assert 10 < low < 50 and high > 82  # the first tenth of a curve may run out of the picture


def test_another_metric_says_so(tmp_path):
    (chart,) = curves.learning(tables.write(tmp_path, tables.plan(**TWO), level), "train", "train_accuracy")
    assert (chart.name, chart.y_label) == ("train", "train accuracy (%)")
    assert chart.title.startswith("train accuracy, fresh \N{MINUS SIGN} pretrain+tune: 0.00 points")
    assert by_name(chart)["fresh"][0].mean[-1] == tables.FIT


def test_a_chart_for_each_pack(tmp_path):
    config = tables.plan(**TWO)
    config.grid = (("model.width", (4, 8)),)
    narrow, wide = curves.learning(
        tables.write(tmp_path, config, lambda label, seed: 60.0 + ("8" in label) + seed), "c"
    )
    assert (narrow.name, wide.name) == ("c_width=4", "c_width=8")
    assert "width 4" in narrow.about and "width 8" in wide.about
    assert [set(by_name(one)) for one in (narrow, wide)] == [
        {f"fresh[width={width}]", f"pretrain+tune[width={width}]"} for width in (4, 8)
    ]
    assert by_name(wide)["fresh[width=8]"][0].mean[-1] == 62.0


def test_a_study_in_progress_is_drawn_where_it_will_be(tmp_path):
    (chart,) = curves.learning(tables.write(tmp_path, tables.plan(**TWO), level, stages=["pretrain"], at=0.4))
    (pretrained,) = chart.series
    assert (pretrained.name, pretrained.x) == ("pretrain", (-5.0, -4.5, -4.0, -3.5, -3.0))
    assert chart.title == "learning curves (in progress)"
    tables.write(tmp_path, tables.plan(**TWO), level, stages=["pretrain", "tune"], at=0.5)
    (chart,) = curves.learning(curves.studies.read(tmp_path))
    assert set(by_name(chart)) == {"fresh", "pretrain+tune"} and by_name(chart)["fresh"][0].x[-1] == 5.0


def test_no_evaluation_no_chart(tmp_path):
    study = tables.write(tmp_path, tables.plan(**TWO), lambda label, seed: float("nan"))
    assert curves.learning(study) == []


def test_a_chain_of_stages_ends_at_zero(tmp_path):
    stages = {
        "one": stage(epochs=2.0),
        "two": stage(epochs=3.0, branches={"a": {"after": "one@2"}}),
        "tune": stage(epochs=4.0, branches={"a": {"after": "two/a"}, "fresh": {"after": "init"}}),
    }
    (chart,) = curves.learning(tables.write(tmp_path, tables.plan(**stages), lambda label, seed: 50.0))
    named = by_name(chart)
    assert sorted(series.x[0] for series in named["a"]) == [-5, -3, 0]
    assert [series.x[0] for series in named["fresh"]] == [0]
    assert {series.role for series in named["a"]} == {"warm"}


def test_stages_whose_length_only_the_data_tell_end_at_zero(tmp_path):
    stages = {
        "pretrain": stage(epochs=99.0, until_accuracy=0.99),
        "tune": stage(epochs=4.0, branches={"a": {"after": "pretrain"}}),
    }
    config = tables.plan(seeds=(0, 10), **stages)
    (chart,) = curves.learning(tables.write(tmp_path, config, lambda label, seed: 50.0 + seed / 10))
    before, after = by_name(chart)["a"]
    assert spans(before) == [(-10, 0), (-20, 0)]
    assert (before.x[0], before.x[-1]) == (-10, 0)  # the mean is only where both seeds are
    assert before.mean[-1] == 50.5
    assert spans(after) == [(0, 4), (0, 4)]


def test_a_grid_has_a_series_per_point_and_shares_what_comes_before(tmp_path):
    config = tables.plan(**TWO)
    config.grid = (("stages.tune.optim.learning_rate", (0.1, 0.2)),)
    (chart,) = curves.learning(tables.write(tmp_path, config, lambda label, seed: 50.0 + seed))
    tuned = {f"{branch}[learning_rate={rate}]" for branch in WARM for rate in (0.1, 0.2)}
    roles = {series.name: series.role for series in chart.series}
    assert roles == {"pretrain": "shared", **dict.fromkeys(tuned, "other")}


def test_a_failed_run_is_drawn_but_not_averaged(tmp_path):
    (chart,) = curves.learning(tables.write(tmp_path, tables.plan(**TWO), level, failed=["fresh/seed2"]))
    (fresh,) = by_name(chart)["fresh"]
    assert fresh.mean[-1] == 80.5 and len(fresh.lines) == 3
    assert "n = 2" in chart.title and "1 failed run" in chart.about


def test_some_labels_by_other_names(tmp_path):
    branches = {**WARM, "head": {"after": "pretrain", "reset": {"modules": ("head",)}}}
    study = tables.write(
        tmp_path, tables.plan(pretrain=TWO["pretrain"], tune=stage(epochs=4.0, branches=branches)), level
    )
    (chart,) = curves.learning(study, names={"fresh": "No pretrain", "head": "Reset", "gone": "Gone"})
    assert [(series.name, series.role) for series in chart.series] == [
        ("Reset", "warm"),
        ("No pretrain", "fresh"),
        ("Reset", "warm"),
    ]


def test_one_stage_alone(tmp_path):
    study = tables.write(tmp_path, tables.plan(**TWO), level)
    found = curves.stage(study, "pretrain", "test_accuracy")
    assert (found.x[0], found.x[-1], found.mean[-1], len(found.lines)) == (0.0, 5.0, 51.0, 3)


def test_average_interpolates_where_evaluations_differ():
    average = curves.average("a", [Line(0, (0.0, 4.0), (0.0, 8.0)), Line(1, (1.0, 2.0), (10.0, 10.0))])
    assert (average.x, average.mean) == ((1.0, 2.0), (6.0, 7.0))
    assert average.lines[0].x == (0.0, 4.0)
    assert curves.average("a", [], [Line(0, (0.0,), (1.0,))]).x == ()


@pytest.mark.parametrize(
    "label, expected",
    [
        ("fresh", ("fresh", {})),
        ("fresh[depth=1,width=4]", ("fresh", {"depth": "1", "width": "4"})),
        ("a+b[milestones=(0.5,0.8),a+b/rate=3x]", ("a+b", {"milestones": "(0.5,0.8)", "a+b/rate": "3x"})),
    ],
)
def test_parts_of_a_label(label, expected):
    assert curves.parts(label) == expected
