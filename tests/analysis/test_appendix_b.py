"""The works that Berariu et al. lean on: their claims in worlds that are as they say and in others, and the figures."""

import functools
import importlib
import re
import zlib
from collections import Counter

import pytest

from plasticity_jax.analysis import figures, stats, verify
from plasticity_jax.analysis.claims import appendix_b
from tests.support import synthetic

STUDIES = sorted({claim.study for claim in appendix_b.CLAIMS})
END = float("inf")


def slip(*of):
    """A number in [0, 1) for what is named."""
    return zlib.crc32(repr(of).encode()) / 2**32


def number(label):
    """The first number in a label, or 0."""
    return float(next(iter(re.findall(r"\d+(?:\.\d+)?", label)), 0))


def critical_period(label, stage, seed, metric, epoch):
    """What is lost grows with the square of the length of the deficit; clear images cost nothing."""
    if metric == "fisher_trace":
        return {0.0: 10.0, END: 5.0}.get(epoch, 20.0)
    return 80.0 - number(label) ** 2 / 200 * ("blur-" in label) if metric == "test_accuracy" else None


WORLDS = {"critical_period": critical_period}
METRICS = ("test_accuracy", "fisher_trace")


def world(study, opposite, label, stage, seed, metric, epoch):
    """That of the study with slips of a hundredth, so that there are intervals; or all differences the other way."""
    value = WORLDS[study](label, stage, seed, metric, epoch)
    if value is None:
        return None
    return (-value if opposite else value) + 0.01 * slip(label, stage, seed, metric, epoch)


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
    told = {each.claim.id: each.verdict for each in found if each.claim.direction != stats.WITHIN}
    assert told == dict.fromkeys(told, stats.CONTRADICTED) and len(told) > 1


def test_accuracy_against_the_length_of_the_deficit():
    charts = drawn("critical_period")
    blurred = charts["critical_period"]["blurred images first"]
    assert blurred.x == (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)
    assert blurred.mean == pytest.approx([80, 79.98, 79.875, 79.5, 78, 72], abs=0.01)
    assert charts["critical_period"]["clear images first"].mean == pytest.approx([80] * 6, abs=0.01)
    assert charts["critical_period_fisher"]["blur images"].mean == pytest.approx([10, 20, 20, 5], abs=0.01)
