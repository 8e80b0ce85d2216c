"""Each study as the figures of its paper: which values are where in the charts."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plasticity_jax.analysis import figures, remedies
from plasticity_jax.analysis.plots import matplotlib_backend
from plasticity_jax.analysis.plots.spec import Chart, Series
from plasticity_jax.configs import base
from plasticity_jax.configs.base import stage
from plasticity_jax.errors import LabError
from tests.support import tables

MINUS = "\N{MINUS SIGN}"
HALF = 2.484138  # of the 95% t interval of three values with sd 1
SEEDS = (0, 1, 2)


def level(label: str, seed: int) -> float:
    """Accuracies whose gap is 4, 5 and 6 points whatever is done; seed s is s points better without pretraining."""
    return 50.0 + seed if label.startswith(("fresh", "replacement")) else 46.0


def charts(root: Path, study: str, arg: str = "small", level: Callable = level, seeds=SEEDS, **how) -> dict[str, Chart]:
    config = tables.preset(study, arg, seeds=seeds, **how.pop("changed", {}))
    return {chart.name: chart for chart in figures.charts(tables.write(root, config, level, **how))}


def named(chart: Chart) -> dict[str, Series]:
    return {series.name: series for series in chart.series}


def points(series: Series) -> dict[float, float]:
    return dict(zip(series.x, series.mean, strict=True))


def gap(name: str, mean: float = 5.0) -> str:
    low, high = (f"{bound:.2f}" for bound in (mean - HALF, mean + HALF))
    return f"{name}: {mean:.2f} points (95% interval {low} to {high}, n = 3)"


def test_every_named_study_has_its_figures():
    files = [path.stem for path in (Path(figures.__file__).parent.parent / "configs").glob("*.py")]
    none = ("base", "presets", "treatments", "paper", "__init__")  # paper is all of them
    offered = [importlib.import_module(f"plasticity_jax.configs.{stem}") for stem in files if stem not in none]
    names = {module.get_config("smoke").name for module in offered if hasattr(module, "get_config")}
    names |= {f"{remedies.PREFIX}{protocol}" for protocol in remedies.PROTOCOLS}
    names |= {f"{of}_{name}" for of in ("multistage", "pretrain_length") for name in base.OPTIMISERS if name != "adam"}
    assert names | {"warm_start_online", "patterns_graded"} == set(figures.CHARTS)


def test_multistage_shows_both_accuracies(tmp_path):
    by_name = charts(tmp_path, "multistage", "digits")
    assert list(by_name) == ["multistage", "multistage_train"]
    test, train = by_name.values()
    assert test.title == gap(f"fresh {MINUS} pretrain+tune")
    assert (test.window, test.origin, test.series[0].x[0]) == ((48.0, 60.0), True, -30.0)
    assert (test.y_label, train.y_label) == ("test accuracy (%)", "train accuracy (%)")
    assert train.series[-1].mean[-1] == tables.FIT and train.title.startswith("train accuracy")


def test_pretrain_length_starts_from_fresh(tmp_path):
    def falls(label: str, seed: int) -> float:
        return 50 - int(label.removeprefix("pretrain-")) if "-" in label else 60.0 + seed

    main, fit = charts(tmp_path, "pretrain_length", "digits", level=falls).values()
    warm, fresh = main.series
    assert points(warm) == {0.0: 61.0, 1.0: 49.0, 3.0: 47.0, 10.0: 40.0, 30.0: 20.0}
    assert (warm.low[0], warm.high[0]) == pytest.approx((61 - HALF, 61 + HALF), abs=1e-5)
    assert (fresh.level, fresh.mean, fresh.role, warm.role) == (True, (61.0,), "fresh", "warm")
    assert (main.scale, main.form) == ("symlog", "points")
    assert main.title == gap(f"fresh {MINUS} pretrain-30", 41.0)
    assert (fit.form, fit.series[0].x[-1], fit.series[0].mean[-1]) == ("curve", 30.0, tables.FIT)
    assert fit.view[0] < fit.series[0].mean[0] and fit.view[1] > tables.FIT  # every point is visible
    assert "train accuracy on the half, epoch 30: 98.00%" in fit.title


def test_blending_has_two_controls(tmp_path):
    (chart,) = charts(tmp_path, "blending", "digits").values()
    blend, fresh, replacement = chart.series
    gammas = importlib.import_module("plasticity_jax.configs.blending").get_config("digits").grid[0][1]
    assert points(blend) == dict.fromkeys(gammas, 46.0)
    assert fresh.level and replacement.level and replacement.mean == (51.0,)
    assert chart.title == "; ".join(gap(f"{control} {MINUS} blend[gamma=0.9]") for control in ("fresh", "replacement"))


def test_splits_against_number_and_uniform_share(tmp_path):
    def falls(label: str, seed: int) -> float:
        _, n, *uniform = label.split("-") if label != "fresh" else ("", "1")
        return 60 - int(n) - (10 - int(uniform[1]) / 10 if uniform else 0) + seed * (label == "fresh")

    left, right = charts(tmp_path, "splits", "", level=falls).values()
    assert points(named(left)["one after another"]) == {1.0: 60.0, 2.0: 58.0, 3.0: 57.0, 5.0: 55.0, 10.0: 50.0}
    assert set(named(right)) == {"2 data sets", "5 data sets", "10 data sets", "fresh"}
    assert points(named(right)["5 data sets"]) == {0.0: 45.0, 25.0: 47.5, 50.0: 50.0, 75.0: 52.5, 100.0: 55.0}
    assert left.title == gap(f"fresh {MINUS} splits-10", 10.0)
    assert right.title == gap(f"fresh {MINUS} splits-10-uniform-0", 20.0)


def test_architecture_has_a_series_per_depth(tmp_path):
    pairs, gaps = charts(tmp_path, "architecture", "").values()
    depths, widths = (1, 2, 3, 4), (16.0, 32.0, 64.0, 128.0)
    assert set(named(pairs)) == {f"{branch}, depth {d}" for branch in ("fresh", "pretrain+tune") for d in depths}
    assert points(named(pairs)["fresh, depth 4"]) == dict.fromkeys(widths, 51.0)
    assert points(named(gaps)["depth 2"]) == dict.fromkeys(widths, 5.0)
    assert named(gaps)["depth 2"].low[0] == pytest.approx(5 - HALF, abs=1e-5)  # of the differences, not of either side
    assert gaps.zero and gaps.scale == "log"
    assert gaps.title == "; ".join(gap(f"gap at depth {d}, width {w}") for d, w in ((1, 16), (4, 128)))


def test_resets_in_three_groups_and_learning_curves(tmp_path):
    by_name = charts(
        tmp_path, "resets", "", level=lambda label, seed: 48.0 if label == "reset-3-6" else level(label, seed)
    )
    chart, lines = by_name["resets"], by_name["resets_curves"]
    groups = "6 5-6 4-6 3-6 2-6".split(), "1 1-2 1-3 1-4 1-5".split(), "2 3 4 5".split()
    assert [name for _, name in chart.ticks] == sum(groups, [])
    assert [x for x, _ in chart.ticks] == [*range(0, 5), *range(6, 11), *range(12, 16)]
    last, first, single, fresh, warm = chart.series
    assert points(last)[3.0] == 48.0 and (len(last.x), len(first.x), len(single.x)) == (5, 5, 4)
    assert fresh.level and warm.level and (fresh.mean, warm.mean) == ((51.0,), (46.0,))
    assert chart.title == "; ".join([gap(f"fresh {MINUS} pretrain+tune"), gap(f"fresh {MINUS} reset-3-6", 3.0)])
    roles = {series.name: series.role for series in lines.series}
    assert roles == {
        "pretrain": "shared",
        "No pretrain": "fresh",
        "Pretrain+Tune": "warm",
        "Reset last 4": "other",
        "Reset last 5": "other",
    }
    assert named(lines)["Reset last 4"].mean[-1] == 48.0 and named(lines)["pretrain"].x[0] == -350.0


def test_tuning_rate_has_both_gaps(tmp_path):
    def helped(label: str, seed: int) -> float:
        return level(label, seed) - 2 * (label == "fresh[rate=10x]")

    rates, gaps = charts(tmp_path, "tuning_rate", "digits", level=helped).values()
    assert points(named(rates)["fresh"]) == {1.0: 51.0, 3.0: 51.0, 10.0: 49.0, 30.0: 51.0}
    assert points(named(gaps)["against fresh at the same rate"]) == {1.0: 5.0, 3.0: 5.0, 10.0: 3.0, 30.0: 5.0}
    assert points(named(gaps)["against fresh at 1x"]) == dict.fromkeys((1.0, 3.0, 10.0, 30.0), 5.0)
    assert (rates.scale, [name for _, name in rates.ticks]) == ("log", ["1x", "3x", "10x", "30x"])
    name = f"fresh {MINUS} pretrain+tune, both at"
    assert rates.title == "; ".join([gap(f"{name} 1x"), gap(f"{name} 10x", 3.0)])


def test_controls_by_stem(tmp_path):
    levels, gaps = charts(tmp_path, "controls").values()
    branches = ["fresh", "pretrain+tune", "fresh-matched", "fresh-statistics"]
    assert [name for _, name in levels.ticks] == branches
    assert [name for _, name in gaps.ticks] == branches[1:]
    assert list(named(levels)) == ["imagenet stem", "cifar stem"]
    assert points(named(gaps)["cifar stem"]) == {1.0: 5.0, 2.0: 0.0, 3.0: 0.0}
    assert not levels.joined and gaps.zero


def test_warm_start_table_in_the_order_of_the_config(tmp_path):
    bars, gaps = charts(tmp_path, "warm_start").values()
    assert [name for _, name in bars.ticks] == [
        f"{m}\n{o}" for m in ("resnet", "mlp", "logistic") for o in ("adam", "sgd")
    ]
    assert bars.form == "bars" and list(named(bars)) == ["fresh", "pretrain+tune", "shrink-perturb"]
    assert points(named(bars)["fresh"]) == dict.fromkeys(map(float, range(6)), 51.0)
    assert points(named(gaps)["shrink-perturb"]) == dict.fromkeys(map(float, range(6)), 5.0)
    assert [series.role for series in bars.series] == ["fresh", "warm", "other"]


@pytest.mark.parametrize("images, last", [(5000, "5,000 images"), (0, "100%")])
def test_warm_start_online_against_images_so_far(tmp_path, images, last):
    scores, updates = charts(tmp_path, "warm_start", "digits,study=online", changed={"train_images": images}).values()
    share = (images or 100) / 5
    chunks = [share * k for k in range(1, 6)]
    assert {name: points(series) for name, series in named(scores).items()} == {
        "fresh": dict.fromkeys(chunks, 51.0),
        "warm": dict.fromkeys(chunks, 46.0),
        "shrink-perturb": dict.fromkeys(chunks, 46.0),
    }
    assert points(named(updates)["warm"]) == dict.fromkeys(chunks, 220.0)  # of 10, 11 and 12 epochs of 20
    assert scores.title == gap(f"fresh {MINUS} warm at {last}")


@pytest.mark.parametrize("name", ["", "my own"])
def test_an_own_study_has_learning_curves(tmp_path, name):
    config = tables.plan(name, tune=stage(epochs=4.0, branches={"fresh": {}, "other": {"epochs": 5.0}}))
    (chart,) = figures.charts(tables.write(tmp_path, config, level))
    assert chart.form == "curve" and chart.name == ("my own_curves" if name else "curves")


@pytest.mark.parametrize("study", ["blending", "pretrain_length", "resets"])
def test_learning_curves_until_the_first_run_ends(tmp_path, study):
    last = ["tune"] if study == "blending" else ["pretrain", "tune"]
    (chart,) = charts(tmp_path, study, "digits", stages=last, at=0.5).values()
    assert (chart.name, chart.form) == (f"{study}_curves", "curve")
    assert chart.title == f"{study.replace('_', ' ')} (in progress)"


def test_a_study_in_progress_shows_the_runs_that_have_ended(tmp_path):
    config = tables.preset("controls", "digits", seeds=SEEDS)
    study = tables.write(tmp_path, config, level)
    whole = {chart.name: chart for chart in figures.charts(study)}
    for path in [tmp_path / "result.json", *(tmp_path / "stem=cifar").rglob("*.jsonl")]:
        path.unlink()
    partial = {chart.name: chart for chart in figures.charts(figures.studies.read(tmp_path))}
    assert repr(partial["controls"].series) == repr(
        whole["controls"].series[:1]
    )  # an interval that is not there is NaN
    assert partial["controls"].title == f"{gap('gap with imagenet stem')} (in progress)"


def test_a_failed_run_leaves_mean_and_pair(tmp_path):
    (chart,) = charts(tmp_path, "blending", "digits", failed=["fresh/seed2"]).values()
    assert named(chart)["fresh"].mean == (50.5,)
    assert "n = 2" in chart.title.partition(";")[0] and "1 failed run" in chart.about


def test_branches_may_be_missing(tmp_path):
    gone = [f"{name}/seed{s}" for name in ("fresh", "splits-2") for s in SEEDS]
    chart = charts(tmp_path / "splits", "splits", "digits", failed=gone)["splits"]
    assert points(named(chart)["one after another"]) == {5.0: 46.0}
    assert (list(named(chart)), chart.title) == (["one after another"], "splits")
    gone = [f"fresh,depth=1,width={width}/seed{s}" for width in (16, 32, 128) for s in SEEDS]
    pairs, gaps = charts(tmp_path / "architecture", "architecture", "", failed=gone).values()
    assert points(named(pairs)["fresh, depth 1"]) == {64.0: 51.0}
    assert points(named(gaps)["depth 1"]) == {64.0: 5.0} and len(points(named(gaps)["depth 2"])) == 4


@pytest.mark.slow
def test_the_command_draws_several_studies(tmp_path, capsys):
    for study in ("multistage", "pretrain_length"):
        tables.write(tmp_path / study, tables.preset(study, "digits", seeds=(0,)), level)
    figures.main([str(tmp_path / "multistage"), str(tmp_path / "pretrain_length"), "--out", str(tmp_path / "out")])
    names = ["multistage", "multistage_train", "pretrain_length", "pretrain_length_fit"]
    written = [tmp_path / "out" / f"{name}.{ending}" for name in names for ending in ("png", "svg")]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert all(path.stat().st_size > 5000 for path in written)


@pytest.mark.slow
def test_a_crowded_figure_fits_on_its_paper(tmp_path):
    for chart in charts(tmp_path, "architecture", "").values():
        figure = matplotlib_backend.draw(chart)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        paper = axes.get_window_extent()
        for mean, *_ in axes.containers:
            places = mean.get_transform().transform(mean.get_xydata())
            assert ((paper.x0 < places[:, 0]) & (places[:, 0] < paper.x1)).all()


@pytest.mark.parametrize("wrong", ["nothing", "no evaluation", "not finite", "twice", "folder"])
def test_what_goes_wrong_is_one_line(tmp_path, wrong):
    directory, out = tmp_path / "study", tmp_path / "out"
    value = float("nan") if wrong == "not finite" else 50.0
    if wrong != "nothing":
        config = tables.preset("multistage", "digits", seeds=(0,))
        stages = ["pretrain"] if wrong == "not finite" else []
        tables.write(directory, config, lambda label, seed: value, stages=stages)
    if wrong == "no evaluation":
        for path in directory.rglob("*.jsonl"):
            path.unlink()
    if wrong == "folder":
        out.write_text("in the way")
    again = [shutil.copytree(directory, tmp_path / "again")] if wrong == "twice" else []
    with pytest.raises(SystemExit) as stopped:
        figures.main([*map(str, [directory, *again]), "--out", str(out)])
    message = str(stopped.value)
    assert message.startswith("analysis.figures: ") and "\n" not in message and str(tmp_path) in message
    assert not out.is_dir()


def test_nothing_evaluated_yet_says_so(tmp_path):
    study = tables.write(tmp_path, tables.preset("blending", "digits"), lambda label, seed: float("nan"))
    with pytest.raises(LabError, match="no test_accuracy yet"):
        figures.charts(study)
