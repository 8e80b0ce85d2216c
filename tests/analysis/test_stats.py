"""The rule that turns effects into verdicts, and its corrections."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from plasticity_jax.analysis.effects import stats as rule
from plasticity_jax.analysis.effects.stats import CONTRADICTED, DIRECTIONS, INCONCLUSIVE, NOT_BELOW, REPRODUCED, WITHIN
from plasticity_jax.storage import results

SEEDS = st.lists(st.integers(-5000, 5000).map(lambda thousandths: thousandths / 1000), min_size=2, max_size=8)
P = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=5)


def verdict(values, direction="above", margin=1.0, error=0.05):
    return rule.verdict(direction, margin, *results.interval(values, rule.level(direction, error)))


@pytest.mark.parametrize(
    "direction, low, high, expected",
    [
        ("above", 0.1, 2, REPRODUCED),
        ("above", -0.1, 2, INCONCLUSIVE),
        ("above", -2, -0.1, CONTRADICTED),
        ("above", 0.0, 2, INCONCLUSIVE),
        ("below", -2, -0.1, REPRODUCED),
        ("below", -2, 0.1, INCONCLUSIVE),
        ("below", 0.1, 2, CONTRADICTED),
        ("within", -0.9, 0.9, REPRODUCED),
        ("within", 0.2, 0.9, REPRODUCED),  # different from zero, but by less than matters
        ("within", 0.9, 1.1, INCONCLUSIVE),
        ("within", -3, 3, INCONCLUSIVE),
        ("within", -3, -0.5, INCONCLUSIVE),
        ("within", 1.1, 3, CONTRADICTED),
        ("within", -3, -1.1, CONTRADICTED),
        ("not_below", -0.9, 0.9, REPRODUCED),
        ("not_below", 2.0, 9.0, REPRODUCED),  # better by more than the margin contradicts nothing
        ("not_below", -1.0, 0.9, INCONCLUSIVE),
        ("not_below", -3, 0.5, INCONCLUSIVE),
        ("not_below", -3, -1.1, CONTRADICTED),
        ("above", None, None, INCONCLUSIVE),
        ("not_below", None, None, INCONCLUSIVE),
        ("within", None, None, INCONCLUSIVE),
    ],
)
def test_the_rule(direction, low, high, expected):
    assert rule.verdict(direction, 1.0, low, high) == expected


def test_the_margin_is_the_claim_s():
    assert rule.verdict("within", 3.0, 1.1, 2.9) == REPRODUCED
    assert rule.verdict("within", 0.5, 0.6, 0.9) == CONTRADICTED


def test_a_direction_that_there_is_not():
    with pytest.raises(ValueError, match="upwards"):
        rule.verdict("upwards", 1.0, 0.0, 1.0)


def test_true_opposite_and_equal_effects_are_told_apart():
    noise = np.random.default_rng(1).normal(0, 0.7, 10)
    assert verdict(noise + 3) == REPRODUCED
    assert verdict(noise - 3) == CONTRADICTED
    assert verdict(noise) == INCONCLUSIVE
    assert verdict(noise, "within") == REPRODUCED
    assert verdict(noise + 3, "within") == CONTRADICTED
    assert verdict(noise[2:5], "within") == INCONCLUSIVE  # too few seeds to show that nothing is there


@pytest.mark.parametrize("n", [3, 5, 10])
def test_no_effect_is_rarely_called_one(n):
    """By the rule 2.5 % on either side, whatever the number of seeds."""
    draws = np.random.default_rng(n).normal(0, 1, (4000, n))
    verdicts = [verdict(draw) for draw in draws]
    for wrong in (REPRODUCED, CONTRADICTED):
        assert 0.025 - 4 * 0.0025 < verdicts.count(wrong) / 4000 < 0.025 + 4 * 0.0025  # 4 standard errors


def test_a_difference_of_a_margin_is_rarely_called_equal():
    draws = np.random.default_rng(0).normal(1.0, 0.7, (4000, 10))
    found = [verdict(draw, "within") for draw in draws]
    assert 0.05 - 4 * 0.0034 < found.count(REPRODUCED) / 4000 < 0.05 + 4 * 0.0034  # 4 standard errors


def test_equivalence_is_two_one_sided_tests():
    """TOST at 5%: the larger p of the tests against either margin, as the 90% interval says."""
    values = np.array([0.1, 0.9, 0.7, 0.2])
    p = max(
        stats.ttest_1samp(values, -1.0, alternative="greater").pvalue,
        stats.ttest_1samp(values, 1.0, alternative="less").pvalue,
    )
    assert 0.025 < p < 0.05  # the 95% interval reaches beyond the margin
    assert rule.p_value(WITHIN, 1.0, values) == pytest.approx(p)
    assert verdict(values, WITHIN) == REPRODUCED
    assert verdict(values, WITHIN, error=0.025) == INCONCLUSIVE


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(values=SEEDS, error=st.sampled_from([0.2, 0.05, 0.01, 0.001]), margin=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_p_value_is_the_error_at_which_the_interval_gives_a_verdict(direction, values, error, margin):
    p = rule.p_value(direction, margin, values)
    if abs(p - error) > 1e-9:
        assert (p < error) == (verdict(values, direction, margin, error) != INCONCLUSIVE)


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(value=st.floats(-1000, 1000), n=st.integers(1, 6))
def test_no_scatter_is_no_certainty(direction, value, n):
    assert verdict([value] * n, direction) == INCONCLUSIVE
    assert rule.p_value(direction, 1.0, [value] * n) == 1.0


@given(values=SEEDS, better=st.floats(0, 100))
def test_being_better_never_contradicts_non_inferiority(values, better):
    order = [CONTRADICTED, INCONCLUSIVE, REPRODUCED]
    before, after = (verdict([v + more for v in values], NOT_BELOW) for more in (0.0, better))
    assert order.index(after) >= order.index(before)


def test_holm_by_hand():
    assert rule.holm([("a", 0.01), ("b", 0.04), ("c", 0.03)], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert rule.holm([("a", 0.01), ("b", 0.04), ("c", 0.03)], 5) == pytest.approx([0.05, 0.12, 0.12])  # two untested
    assert rule.holm([], 7) == []


@given(p=P)
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis falls if every set that holds it does by Bonferroni; its p is the largest of theirs."""
    members = range(len(p))
    sets = [each for size in members for each in itertools.combinations(members, size + 1)]
    closed = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if j in s) for j in members]
    assert rule.holm(list(enumerate(p)), len(p)) == pytest.approx(closed)


@given(p=P, absent=st.integers(0, 5), data=st.data())
def test_copies_count_once_and_what_is_absent_is_never_forgotten(p, absent, data):
    tests = list(enumerate(p))
    k = len(p) + absent
    alone = rule.holm(tests, k)
    copy = data.draw(st.integers(0, len(p) - 1))
    assert rule.holm([*tests, tests[copy]], k) == pytest.approx([*alone, alone[copy]])
    assert all(each <= min(1.0, k * raw) + 1e-12 for each, raw in zip(alone, p, strict=True))  # Bonferroni's
    assert all(few >= many - 1e-12 for few, many in zip(rule.holm(tests[:-1], k), alone, strict=False))
