"""Series and charts as data."""

import math

import pytest

from plasticity_jax.analysis.plots import spec

HALF = 2.484138  # of the 95% t interval of three values with sd 1: 4.302653 / sqrt(3)


def test_a_series_has_mean_and_interval_at_each_x():
    series = spec.series("warm", {0: {1.0: 4.0, 2.0: 1.0}, 1: {1.0: 5.0}, 2: {1.0: 6.0}}, "warm")
    assert (series.x, series.mean) == ((1.0, 2.0), (5.0, 1.0))
    assert series.low[0] == pytest.approx(5 - HALF, abs=1e-5) and series.high[0] == pytest.approx(5 + HALF, abs=1e-5)
    assert math.isnan(series.low[1]) and math.isnan(series.high[1])  # one run has no interval
    assert series.lines[0] == spec.Line(0, (1.0, 2.0), (4.0, 1.0))
    assert [line.seed for line in series.lines] == [0, 1, 2]
    assert (series.role, series.level) == ("warm", False)


def test_a_series_of_nothing_is_empty():
    found = spec.series("warm", {})
    assert (found.x, found.mean, found.low, found.lines) == ((), (), (), ())


def test_across_turns_values_by_x_into_runs_by_seed():
    found = spec.across("warm", {3.0: {0: 1.0}, 1.0: {0: 4.0, 1: 6.0}, 2.0: {}})
    assert (found.x, found.mean) == ((1.0, 3.0), (5.0, 1.0))
    assert found.lines == (spec.Line(0, (1.0, 3.0), (4.0, 1.0)), spec.Line(1, (1.0,), (6.0,)))


def test_a_level_is_one_value():
    series = spec.level("fresh", {0: 4.0, 1: 5.0, 2: 6.0}, "fresh")
    assert (series.level, series.role, series.mean) == (True, "fresh", (5.0,))
    assert series.high[0] == pytest.approx(5 + HALF, abs=1e-5)
    assert spec.level("fresh", {}).x == ()
