"""The account of two phases: rank correlations in closed form, its claims on given numbers, and its figures."""

import dataclasses
import math
import re
import zlib
from collections import Counter

import pytest

from plasticity_jax import study_config
from plasticity_jax.analysis import figures, verify
from plasticity_jax.analysis.claims import two_phases as account
from plasticity_jax.analysis.effects import contrasts, derived, stats
from plasticity_jax.analysis.plots import phases
from plasticity_jax.analysis.report import why
from plasticity_jax.configs import two_phases
from plasticity_jax.errors import LabError
from plasticity_jax.runner import prepare
from plasticity_jax.storage.results import LINES
from tests.support import small, synthetic

METRICS = (
    "test_accuracy",
    "noise_trace",
    "noise_of_update",
    "preconditioned_noise_of_update",
    "adaptive_sharpness",
    "filter_rise",
)
# The noise of the updates of each branch; accuracy and width follow from it, each with jitter.
NOISE = {"fresh": 9.0, "fresh-10x": 8.5, "warm": 1.0, "warm-10x": 7.0, "warm-1": 5.0, "shrink-perturb": 6.0}


def jitter(*of):
    """A number in [0, 1) that depends on the arguments alone."""
    return zlib.crc32(repr(of).encode()) / 2**32


def noise_makes_width_makes_accuracy(label, stage, seed, metric, epoch):
    """Numbers as the account has them: noise decides width, width decides accuracy, each with its own jitter."""
    if metric == "steps":
        return None
    noise = NOISE.get(label, 3.0 + 0.1 * len(label)) + 0.1 * jitter(seed, label, "noise")
    sharpness = 20.0 - noise + 2.0 * jitter(seed, label, "width")
    accuracy = 90.0 - sharpness + 0.5 * jitter(seed, label, "accuracy")
    width = dict.fromkeys(("adaptive_sharpness", "filter_rise"), sharpness)
    return {"test_accuracy": accuracy, **width}.get(metric, noise)


def otherwise(label, stage, seed, metric, epoch):
    """The opposite: more noise ends narrower and less accurate, and a pretrained network has more of it."""
    value = noise_makes_width_makes_accuracy(label, stage, seed, metric, epoch)
    return value if metric == "test_accuracy" or value is None else 100.0 - value


def study(world, preset="digits"):
    config = two_phases.get_config(preset)
    epochs = lambda end: (0.0, end / 5, end / 2)  # noqa: E731
    return synthetic.study(config, world, metrics=METRICS, epochs=epochs)


@pytest.fixture(scope="module")
def as_told():
    return study(noise_makes_width_makes_accuracy)


def test_ids_are_unique_and_sources_are_named():
    assert not [key for key, count in Counter(claim.id for claim in account.CLAIMS).items() if count > 1]
    assert {claim.paper for claim in account.CLAIMS} == {"Berariu et al. 2021"}
    assert all(re.fullmatch(r"[A-Z].*\.", claim.statement) for claim in account.CLAIMS)
    assert all("[inferred]" in claim.source for claim in account.CLAIMS if claim.id != "gap")


def test_a_rank_correlation_is_spearman_s():
    assert derived.rank_correlation([1, 2, 3, 4], [10, 20, 30, 999]) == pytest.approx(1.0)
    assert derived.rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert derived.rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]) == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert math.isnan(derived.rank_correlation([1, 2], [1, 2]))
    assert math.isnan(derived.rank_correlation([1, 1, 1], [1, 2, 3]))


def test_what_goes_through_a_third_is_gone_where_the_third_is_equal():
    """Two that follow a third, each with its own jitter: r = 0.9, 0.8 and 0.9 of the ranks, in closed form."""
    third, first, second = [1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [1, 2, 3, 5, 4]
    r, left = derived.rank_correlation(first, second), (1 - 0.9**2)
    assert r == pytest.approx(0.8)
    assert derived.rank_correlation(first, second, third) == pytest.approx((0.8 - 0.9 * 0.9) / left)
    assert math.isnan(derived.rank_correlation(first, second, first))


def test_a_seed_without_all_measurements_has_no_correlation(as_told):
    def world(label, stage, seed, metric, epoch):
        lost = seed == 1 and metric == "noise_of_update" and label not in ("fresh", "warm")
        return None if lost else noise_makes_width_makes_accuracy(label, stage, seed, metric, epoch)

    example = study(world)
    total = derived.ranked(account.NOISE, account.ACCURACY)(contrasts.known(example))
    assert set(contrasts.by_seed(example, total)) == {0, 2, 3, 4}
    assert contrasts.formula(total) == "rank correlation of noise_of_update and test_accuracy"


def test_a_world_as_the_account_says_reproduces_every_claim(as_told):
    found = {each.claim.id: each.verdict for each in verify.judge([as_told])}
    assert found == dict.fromkeys((claim.id for claim in account.CLAIMS), stats.REPRODUCED)


def test_the_opposite_contradicts_what_is_said_of_noise_and_width():
    verdicts = {each.claim.id: each.verdict for each in verify.judge([study(otherwise)])}
    same = {"gap", "rate-mends"}  # of accuracies alone, which are not reversed
    wrong = {id for id, verdict in verdicts.items() if verdict != stats.CONTRADICTED}
    assert wrong <= same | {"through-width"} and len(verdicts) == len(account.CLAIMS)


@pytest.mark.parametrize("preset", ["", "small", "digits"])
def test_the_start_the_first_third_and_the_end_are_measured(preset):
    parsed = study_config.parse(two_phases.get_config(preset))
    (pack,) = parsed.packs
    tune = prepare.draw_up(pack, parsed, small.dataset(train=parsed.train_images or 1297, test=10))["tune"]
    for when, points in zip(tune.measured, tune.points, strict=True):
        assert 0.0 in when and any(0 < epoch <= max(points) / 3 for epoch in when)
        assert set(when) <= set(points)


def test_figures_show_noise_over_the_steps_width_and_both_against_accuracy(as_told):
    by_name = {chart.name: chart for chart in figures.charts(as_told)}
    noise = by_name["two_phases_noise"]
    first = {series.name: series.mean[0] for series in noise.series}
    assert first == pytest.approx({name: NOISE[name] + 0.05 for name in first}, abs=0.05)
    assert list(first) == ["fresh", "warm", "warm-10x", "fresh-10x"]
    assert noise.title.startswith("fresh \N{MINUS SIGN} warm, first third of tuning: 8.0")
    assert [label for _, label in by_name["two_phases_width"].ticks][0] == "fresh"
    ((x, y),) = [(one.x, one.mean) for one in by_name["two_phases_by_width"].series if one.name == "warm"]
    assert (x[0], y[0]) == (pytest.approx(20, abs=1.1), pytest.approx(70.25, abs=1.1))
    assert "rank correlation" in by_name["two_phases_by_width"].title


def test_ticks_are_rounded_and_without_exponents():
    assert phases._ticks([78.2, 560.0], wide=True) == (
        (78, "78"),
        (130, "130"),
        (210, "210"),
        (340, "340"),
        (560, "560"),
    )
    assert phases._ticks([1.0, 2.0, 3.0], wide=False)[1] == (1.5, "1.5")
    assert phases._ticks([0.0, 2.0], wide=False) == ()


def test_the_page_why_has_all_over_the_same_updates(as_told):
    charts = phases.why(as_told)
    assert [chart.name for chart in charts] == ["why_accuracy", "why_noise", "why_update", "why_width"]
    assert len({(chart.x_label, chart.scale, chart.series[0].x) for chart in charts}) == 1
    page = why.section([as_told])
    assert page.count("data-chart") == 4 and "Berariu" in page and "plasticity lines" not in page
    assert why.section([dataclasses.replace(as_told, config={**as_told.config, "name": "other"})]) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"loss": {}}', '{"from": "a", "to": "b", "loss": {"0": [1, null]}}', "[" * 100_000]
)
def test_damaged_lines_are_one_line(as_told, text, tmp_path):
    (tmp_path / LINES).write_text(text)
    with pytest.raises(LabError, match=f"{LINES} is damaged"):
        phases.line(dataclasses.replace(as_told, directory=tmp_path))


def test_the_line_is_drawn_with_its_barrier(as_told, tmp_path):
    (tmp_path / LINES).write_text(
        '{"from": "fresh", "to": "warm", "images": 9, "loss": {"0": [1, 5, 3], "1": [2, 4, 2]}}'
    )
    (chart,) = phases.line(dataclasses.replace(as_told, directory=tmp_path))
    assert (chart.series[0].x, chart.series[0].mean) == ((0.0, 0.5, 1.0), (1.5, 4.5, 2.5))
    assert chart.title.startswith("barrier between fresh and warm: 2.5")
    assert "plasticity lines" in why.section([dataclasses.replace(as_told, directory=tmp_path)])
