"""Fieller's sets against their definition, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from plasticity_jax.analysis.effects import ratios
from plasticity_jax.analysis.effects.ratios import ANYTHING, BETWEEN, OUTSIDE, Ratio, fieller, shown


def by_seed(*values):
    return dict(enumerate(map(float, values)))


def p(top, bottom, ratio):
    """The p value of the paired t test that the ratio is the true one."""
    return stats.ttest_1samp([top[s] - ratio * bottom[s] for s in top], 0.0).pvalue


def test_by_hand():
    """Bottom 1, 2, 3 and top 0, 1, 2: top - r bottom has mean 1 - 2r and variance (1 - r)^2; t(2) = 4.302653."""
    ratio = fieller(by_seed(0, 1, 2), by_seed(3, 4, 5))  # means 1 and 4, both of variance 1, covariance 1
    c = 4.302652729911275**2 / 3
    # (16 - c) r^2 - 2 (4 - c) r + (1 - c) = 0
    low, high = sorted(np.roots([16 - c, -2 * (4 - c), 1 - c]))
    assert ratio.value == 0.25 and ratio.form == BETWEEN
    assert (ratio.low, ratio.high) == pytest.approx((low, high), rel=1e-9)


def test_ends_are_the_ratios_that_are_just_refuted():
    top, bottom = by_seed(2.0, 3.1, 1.2, 2.4, 2.2), by_seed(3.0, 4.2, 2.1, 2.9, 3.3)
    ratio = fieller(top, bottom)
    assert ratio.form == BETWEEN and ratio.low < ratio.value < ratio.high
    assert p(top, bottom, ratio.low) == pytest.approx(0.05) == p(top, bottom, ratio.high)
    assert p(top, bottom, (ratio.low + ratio.high) / 2) > 0.05 > p(top, bottom, ratio.high + 0.01)


def test_a_bottom_that_may_be_zero_leaves_no_interval():
    top, bottom = by_seed(5.0, 5.1, 4.9, 5.2), by_seed(0.1, -0.2, 0.3, 0.1)
    ratio = fieller(top, bottom)
    assert ratio.form == OUTSIDE and ratio.low < 0 < ratio.high
    assert p(top, bottom, ratio.low) == pytest.approx(0.05) == p(top, bottom, ratio.high)
    assert p(top, bottom, 0.0) < 0.05 < p(top, bottom, ratio.high + 1)


def test_where_both_may_be_zero_anything_is_possible():
    top, bottom = by_seed(0.1, -0.2, 0.15, -0.1), by_seed(0.3, -0.2, -0.1, 0.05)
    assert fieller(top, bottom).form == ANYTHING
    assert all(p(top, bottom, r) > 0.05 for r in (-1e6, -1.0, 0.0, 1.0, 1e6))


def test_no_scatter_and_one_seed_are_no_certainty():
    for ratio in (fieller(by_seed(1, 1, 1), by_seed(2, 2, 2)), fieller(by_seed(1), by_seed(2))):
        assert (ratio.value, ratio.form) == (0.5, ANYTHING)
    assert fieller(by_seed(0, 0, 0), by_seed(1, 2, 3)).form == ANYTHING  # a remedy without any effect
    nothing = fieller({}, {})
    assert math.isnan(nothing.value) and shown(nothing) == "-"


def test_only_seeds_that_both_have_count():
    assert fieller({0: 1.0, 1: 2.0, 7: 50.0}, {0: 2.0, 1: 5.0, 8: 1.0}).value == pytest.approx(3 / 7)


def test_coverage_is_that_of_the_level_also_where_the_bottom_is_small():
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(400):
        bottom = rng.normal(0.5, 1.0, 5)
        ratio = fieller(by_seed(*(0.7 * bottom + rng.normal(0, 0.5, 5))), by_seed(*bottom))
        inside = ratio.low <= 0.7 <= ratio.high
        hit += {BETWEEN: inside, OUTSIDE: 0.7 <= ratio.low or 0.7 >= ratio.high, ANYTHING: True}[ratio.form]
    assert abs(hit / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    "ratio, text",
    [
        (Ratio(0.8, 0.55, 1.1, BETWEEN), "80 % [55, 110]"),
        (Ratio(0.8, -0.2, 0.6, OUTSIDE), "80 % (<= -20 or >= 60)"),
        (Ratio(0.8, math.nan, math.nan, ANYTHING), "80 % (anything)"),
    ],
)
def test_how_it_is_written(ratio, text):
    assert ratios.shown(ratio) == text
