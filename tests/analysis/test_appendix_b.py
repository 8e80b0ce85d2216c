"""The works that Berariu et al. build on: their claims on invented numbers for and against them, and the figures."""

import functools
import importlib
import math
import re
import zlib
from collections import Counter

import pytest

from plasticity_jax.analysis import figures, verify
from plasticity_jax.analysis.claims import appendix_b
from plasticity_jax.analysis.effects import stats
from tests.support import synthetic

STUDIES = sorted({claim.study for claim in appendix_b.CLAIMS})
END = float("inf")


def jitter(*of):
    """A number in [0, 1) that depends on the arguments alone."""
    return zlib.crc32(repr(of).encode()) / 2**32


def number(label):
    """The first number in a label, or 0."""
    return float(next(iter(re.findall(r"\d+(?:\.\d+)?", label)), 0))


def critical_period(label, stage, seed, metric, epoch):
    """The accuracy lost grows with the square of the deficit's length; sharp images lose nothing."""
    if metric == "fisher_trace":
        return {0.0: 10.0, END: 5.0}.get(epoch, 20.0)
    return 80.0 - number(label) ** 2 / 200 * ("blur-" in label) if metric == "test_accuracy" else None


def when_to_regularise(label, stage, seed, metric, epoch):
    return 76.0 + 4.0 * label.startswith(("early", "always")) if metric == "test_accuracy" else None


def rate_batch(label, stage, seed, metric, epoch):
    """Everything depends on the ratio of learning rate and batch size alone."""
    batch, rate = map(float, re.findall(r"=([\d.]+)", label))
    scale = {"test_accuracy": 80.0 + 10 * math.log10(rate / batch), "noise_trace": batch / rate}
    return {**scale, "hessian_eigenvalue/1": batch / rate}.get(metric)


def subspace(label, stage, seed, metric, epoch):
    first = 0.3 if label == "fresh" else 0.9
    found = {"gradient_in_top": first if epoch == 0 else 0.8, "top_overlap_last": 0.7, "test_accuracy": 70.0}
    return found.get(metric)


def spectrum(label, stage, seed, metric, epoch):
    """Nine tenths of the eigenvalues are about zero; without BatchNorm one is far larger than the rest."""
    largest = 100.0 if "none" in label else 10.0
    values = {"test_accuracy": 70.0, "hessian_eigenvalue/1": largest, "hessian_eigenvalue/10": 5.0}
    values |= {"hessian_node/0": 0.0, "hessian_weight/0": 0.9, "hessian_node/1": largest, "hessian_weight/1": 0.1}
    return values.get(metric)


WORLDS = {each.__name__: each for each in (critical_period, when_to_regularise, rate_batch, subspace, spectrum)}
METRICS = (
    "test_accuracy",
    "fisher_trace",
    "noise_trace",
    "gradient_in_top",
    "top_overlap_last",
    *(f"hessian_{name}" for name in ("eigenvalue/1", "eigenvalue/10", "node/0", "weight/0", "node/1", "weight/1")),
)


def world(study, opposite, label, stage, seed, metric, epoch):
    """The numbers of the study with jitter of a hundredth, so that intervals exist; or all differences reversed."""
    value = WORLDS[study](label, stage, seed, metric, epoch)
    if value is None:
        return None
    return (-value if opposite and metric != "hessian_eigenvalue/10" else value) + 0.01 * jitter(
        label, stage, seed, metric, epoch
    )


@functools.cache
def made(study, preset="small", opposite=False):
    config = importlib.import_module(f"plasticity_jax.configs.{study}").get_config(preset)
    epochs = lambda end: (0.0, end / 5, end / 2)  # noqa: E731
    return synthetic.study(config, functools.partial(world, study, opposite), metrics=METRICS, epochs=epochs)


def drawn(study):
    return {chart.name: {one.name: one for one in chart.series} for chart in figures.charts(made(study))}


def test_every_study_has_claims_and_ids_are_unique():
    assert set(STUDIES) == set(WORLDS)
    assert not [key for key, count in Counter((c.study, c.id) for c in appendix_b.CLAIMS).items() if count > 1]
    assert all(re.fullmatch(r"[A-Z].*\.", claim.statement) for claim in appendix_b.CLAIMS)
    assert all("[inferred]" in claim.source for claim in appendix_b.CLAIMS)


@pytest.mark.parametrize("preset", ["", "small", "digits"])
@pytest.mark.parametrize("study", STUDIES)
def test_a_world_as_a_paper_says_reproduces_its_claims(study, preset):
    found = {each.claim.id: each.verdict for each in verify.judge([made(study, preset)])}
    ids = [claim.id for claim in appendix_b.CLAIMS if claim.study == study]
    assert found == dict.fromkeys(ids, stats.REPRODUCED)


@pytest.mark.parametrize("study", STUDIES)
def test_the_opposite_contradicts_every_difference(study):
    found = verify.judge([made(study, opposite=True)])
    told = {each.claim.id: each.verdict for each in found if each.claim.direction in (stats.ABOVE, stats.BELOW)}
    assert told == dict.fromkeys(told, stats.CONTRADICTED) and told


def test_accuracy_against_the_length_of_the_deficit():
    charts = drawn("critical_period")
    blurred = charts["critical_period"]["blurred images first"]
    assert blurred.x == (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)
    assert blurred.mean == pytest.approx([80, 79.98, 79.875, 79.5, 78, 72], abs=0.01)
    assert charts["critical_period"]["clear images first"].mean == pytest.approx([80] * 6, abs=0.01)
    assert charts["critical_period_fisher"]["blurred images"].mean == pytest.approx([10, 20, 20, 5], abs=0.01)


def test_accuracy_by_when_a_regulariser_was_there():
    decay = drawn("when_to_regularise")["when_to_regularise"]["weight decay"]
    assert decay.mean == pytest.approx([76, 76, 80, 80], abs=0.01)


def test_points_of_one_ratio_stand_above_each_other():
    charts = drawn("rate_batch")
    small, large = (charts["rate_batch"][f"batch {batch}"] for batch in (32, 128))
    assert small.x[0] == pytest.approx(large.x[2]) and small.mean[0] == pytest.approx(large.mean[2], abs=0.01)
    assert charts["rate_batch_sharpness"]["batch 128"].mean == pytest.approx([5120, 2560, 1280], rel=1e-4)


def test_the_share_of_the_gradient_over_the_updates():
    charts = drawn("subspace")
    assert charts["subspace"]["fresh"].mean == pytest.approx([0.3, 0.8, 0.8, 0.8], abs=0.01)
    assert charts["subspace_stays"]["pretrain+tune"].mean[-1] == pytest.approx(0.7, abs=0.01)


def test_the_density_has_a_bump_at_each_node_of_its_weight():
    lone = drawn("spectrum")["spectrum"]["large[norm=none]"]
    shares = [10**y for y in lone.mean]
    area = (lone.x[1] - lone.x[0]) * (sum(shares) - (shares[0] + shares[-1]) / 2)
    assert area == pytest.approx(0.5, abs=0.01)  # half of the bump at either end lies outside
    assert shares[0] / shares[-1] == pytest.approx(9, rel=0.05) and shares[100] < 1e-4
    assert drawn("spectrum")["spectrum_largest"]["large[norm=none]"].mean[-1] == pytest.approx(100, abs=0.02)
