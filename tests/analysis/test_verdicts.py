"""The verdicts as one section of a page."""

from pathlib import Path

import pytest

from plasticity_jax.analysis.effects.contrasts import Claim
from plasticity_jax.analysis.effects.judgement import Judged
from plasticity_jax.analysis.effects.stats import (
    ABOVE,
    BELOW,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_BELOW,
    REPRODUCED,
    UNTESTED,
    WITHIN,
)
from plasticity_jax.analysis.report import verdicts
from plasticity_jax.storage import results
from tests.analysis.test_page import NASTY, Reader


def judged(by_seed=None, verdict=REPRODUCED, direction=ABOVE, source="Somebody 2020", **changed):
    by_seed = {0: 2.0, 1: 3.0, 2: 2.5} if by_seed is None else by_seed
    low, high = results.interval(list(by_seed.values()))
    claim = Claim("gap", "multistage", f"There is {NASTY}.", source, lambda known: None, direction, 1.5)
    given = {
        "claim": claim,
        "directory": Path("runs/x"),
        "about": "digits",
        "formula": "fresh - warm",
        "effect": sum(by_seed.values()) / len(by_seed) if by_seed else None,
        "low": low,
        "high": high,
        "by_seed": by_seed,
        "verdict": verdict,
        "difference": True,
        "p": 0.01,
        "k": 1,
        "bonferroni": {REPRODUCED: True, CONTRADICTED: False}.get(verdict),
        "holm": {REPRODUCED: True, CONTRADICTED: False}.get(verdict),
        "note": "",
    }
    return Judged(**{**given, **changed})


def places(made):
    """x coordinates in the strip: both ends of the interval, the effect, and zero."""
    tags = Reader(made).tags
    zero, interval = [seen for name, seen in tags if name == "line"]
    (mark,) = [seen for name, seen in tags if name == "circle"]
    return float(interval["x1"]), float(interval["x2"]), float(mark["cx"]), float(zero["x1"])


def test_a_row_says_everything_about_a_claim():
    low, high = results.interval([2.0, 3.0, 2.5])
    read = Reader(verdicts.section([judged(note="in progress")]))
    for text in (
        f"There is {NASTY}.",
        "multistage / gap; Somebody 2020",
        "measured: fresh - warm",
        "in progress",
        "reproduced 1",
        "expected above 0",
        "holds after Bonferroni",
        "+2.50",
        f"[+{low:.2f}, +{high:.2f}]",
        "points",
        "seed 0: +2.00, seed 1: +3.00, seed 2: +2.50",
    ):
        assert text in read.text
    assert ("span", {"class": "badge good"}) in read.tags
    assert not [name for name, _ in read.tags if name == "script"]
    assert NASTY in read.text  # as text, not as a tag


def test_two_directories_of_a_study_are_told_apart():
    text = Reader(verdicts.section([judged(), judged(directory=Path("runs/y"))])).text
    assert "multistage (runs/x) / gap" in text and "multistage (runs/y) / gap" in text


def test_claims_that_were_not_tested_stand_apart():
    untested = judged({}, UNTESTED, note="the study lacks a branch")
    read = Reader(verdicts.section([judged(), untested]))
    assert "1 not tested here" in read.text
    assert read.text.index("holds after") < read.text.rindex("not tested here") < read.text.index("lacks a branch")


def test_no_claims_are_said_to_be_none():
    assert "no claims" in verdicts.section([])


def test_only_untested_claims_make_no_empty_table():
    made = verdicts.section([judged({}, UNTESTED)])
    assert made.count("<table") == 1
    assert "intervals" not in made


@pytest.mark.parametrize(
    "verdict, direction, texts",
    [
        (CONTRADICTED, BELOW, ("expected below 0", "lost after Bonferroni and Holm")),
        (INCONCLUSIVE, NOT_BELOW, ("expected above \N{MINUS SIGN}1.5",)),
        (INCONCLUSIVE, WITHIN, ("expected within \N{PLUS-MINUS SIGN}1.5",)),
    ],
)
def test_what_was_expected_and_what_remains(verdict, direction, texts):
    text = Reader(verdicts.section([judged(verdict=verdict, direction=direction)])).text
    assert all(each in text for each in texts)
    assert ("lost after" in text) == (verdict == CONTRADICTED)


def test_negative_numbers_have_a_minus_sign():
    text = Reader(verdicts.section([judged({0: -2.0, 1: -3.0})])).text
    assert "\N{MINUS SIGN}2.50" in text
    assert "-2.50" not in text


def test_large_numbers_have_no_decimals():
    assert "+1,500" in Reader(verdicts.section([judged({0: 1000.0, 1: 2000.0})])).text


def test_a_strip_shows_the_interval_around_zero():
    low, high, effect, zero = places(verdicts.strip(judged({0: 1.0, 1: 1.2, 2: 1.1}), reach=4.0))
    assert zero == verdicts.WIDTH / 2
    assert zero < low < effect < high < verdicts.WIDTH
    assert (effect - zero) / (verdicts.WIDTH / 2) == pytest.approx(1.1 / 4.0, abs=0.03)


def test_a_strip_cuts_off_what_lies_beyond():
    low, high, effect, _ = places(verdicts.strip(judged({0: -90.0, 1: 90.0}), reach=4.0))
    assert 0 < low < effect < high < verdicts.WIDTH


def test_a_strip_shades_the_margin_of_an_equivalence():
    shaded = [seen for name, seen in Reader(verdicts.strip(judged(direction=WITHIN), 3.0)).tags if name == "rect"]
    middle = float(shaded[0]["x"]) + float(shaded[0]["width"]) / 2
    assert middle == pytest.approx(verdicts.WIDTH / 2, abs=0.2)
    below = [seen for name, seen in Reader(verdicts.strip(judged(direction=NOT_BELOW), 3.0)).tags if name == "rect"]
    assert float(below[0]["x"]) + float(below[0]["width"]) == pytest.approx(verdicts.WIDTH / 2, abs=0.2)
    assert not [name for name, _ in Reader(verdicts.strip(judged(), 3.0)).tags if name == "rect"]


def test_a_single_seed_has_no_strip():
    one = judged({0: 1.0}, INCONCLUSIVE)
    assert verdicts.strip(one, 3.0) is None
    assert "+1.00" in verdicts.section([one])


def test_our_own_controls_are_counted_apart():
    ours = [judged({0: float(i), 1: float(i + 1)}, CONTRADICTED, source="ours: Somebody 2020") for i in range(3)]
    text = Reader(verdicts.section([judged(), *ours])).text
    assert "Claims of papersreproduced 1contradicted 0" in text
    assert "Controls of our ownreproduced 0contradicted 3" in text
    assert "Controls of our own" not in Reader(verdicts.section([judged()])).text


def test_an_equivalence_says_the_level_of_its_interval():
    assert "] 90%" in Reader(verdicts.section([judged(direction=WITHIN)])).text
    assert "] 90%" not in Reader(verdicts.section([judged(direction=NOT_BELOW)])).text


def test_what_holds_after_holm_only_says_so():
    assert "holds after Holm, lost after Bonferroni" in Reader(verdicts.section([judged(bonferroni=False)])).text
