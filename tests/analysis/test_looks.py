"""Repeated looks keep the error rate: known bounds, simulated null effects, and what the command prints."""

import numpy as np
import pytest
from scipy import stats as distributions

from plasticity_jax.analysis import collect, verify
from plasticity_jax.analysis.effects import looks, stats
from plasticity_jax.errors import LabError
from tests.support import tables

RESULTS = "analysis/results"


def test_the_error_is_spent_as_by_o_brien_and_fleming():
    """Lan & DeMets 1983, table 1: 5 % over five looks."""
    shares = [looks.spent(n / 5, 0.05) for n in range(1, 6)]
    assert shares == pytest.approx([1.17e-5, 0.00194, 0.01141, 0.02844, 0.05], rel=0.01)


@pytest.mark.parametrize("planned", [2, 3, 10, 16])
def test_levels_rise_to_nearly_the_whole_error(planned):
    levels = looks.levels(planned)
    assert len(levels) == planned - 1 and all(np.diff(levels) > 0)
    assert levels[0] == pytest.approx(looks.spent(2 / planned), rel=1e-3)
    assert 0.5 * stats.ERROR < levels[-1] <= stats.ERROR + 1e-9
    spent = [looks.spent(n / planned) for n in range(2, planned + 1)]
    assert all(np.diff([0.0, *spent]) <= np.array(levels) * 1.0001) and all(np.array(levels) <= np.array(spent) * 1.05)


DRAWS = 40_000


def false_verdicts(planned: int, levels, shift: float = 0.0) -> float:
    """The share of studies without an effect of which some look leaves out `shift`, their true mean."""
    values = np.random.default_rng(planned).normal(shift, 2.0, (DRAWS, planned))
    caught = np.zeros(DRAWS, bool)
    for n, level in zip(range(2, planned + 1), levels, strict=True):
        first = values[:, :n]
        t = (first.mean(1) - shift) / first.std(1, ddof=1) * np.sqrt(n)
        caught |= np.abs(t) > distributions.t.isf(level / 2, n - 1)
    return caught.mean()


@pytest.mark.parametrize("planned", [3, 10])
def test_all_looks_together_err_in_five_percent(planned):
    rate = false_verdicts(planned, looks.levels(planned), 7.0)
    assert rate == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / DRAWS))
    assert false_verdicts(planned, [0.05] * (planned - 1)) > 0.08  # stopping at the first interval without zero


@pytest.mark.parametrize(("direction", "at"), [(stats.WITHIN, 1.0), (stats.NOT_BELOW, -1.0), (stats.ABOVE, 0.0)])
def test_the_rule_errs_no_oftener_for_any_direction(direction, at):
    """At the boundary of what must not be reproduced, `reproduced` at any look is the error."""
    draws, planned = 600, 6
    values = np.random.default_rng(1).normal(at, 0.2, (draws, planned))
    wrong = [
        (first := looks.decided(looks.take(direction, 1.0, list(row), planned))) and first.verdict == stats.REPRODUCED
        for row in values
    ]
    error = stats.ERROR if direction == stats.WITHIN else stats.ERROR / 2
    assert np.mean([bool(each) for each in wrong]) <= error + 4 * np.sqrt(error / draws)


def test_a_plain_effect_is_told_early_and_stands():
    values = [5.0, 5.2, 4.9, 5.1, -30.0, 5.0]
    results = looks.take(stats.ABOVE, 1.0, values, 6)
    assert [look.n for look in results] == [2, 3, 4, 5, 6]
    first = looks.decided(results)
    assert (first.verdict, first.n) == (stats.REPRODUCED, 3) and results[-1].verdict == stats.INCONCLUSIVE
    assert first.effect == pytest.approx(np.mean(values[:3]))
    assert first.level == 1 - looks.levels(6)[1] and first.low > 0


def test_seeds_beyond_the_plan_are_no_looks():
    assert len(looks.take(stats.ABOVE, 1.0, [1.0, 2.0, 3.0, 4.0, 5.0], 3)) == 2
    assert not looks.take(stats.ABOVE, 1.0, [1.0], 3) and not looks.take(stats.ABOVE, 1.0, [1.0], 1)


def test_seeds_are_planned_by_the_config_unless_the_study_has_grown(tmp_path):
    config = {"seeds": [3, 1, 2]}
    assert looks.planned(tmp_path, config) == [3, 1, 2]
    (tmp_path / "planned.json").write_text("[3, 1]")
    assert looks.planned(tmp_path, config) == [3, 1]
    for text in ("[]", "{}", '["3"]', "[true]", "["):
        (tmp_path / "planned.json").write_text(text)
        with pytest.raises(LabError, match=r"planned\.json is damaged"):
            looks.planned(tmp_path, config)


def test_the_command_says_when_a_verdict_fell(tmp_path, capsys):
    level = lambda label, seed: (80 if label == "fresh" else 75) + 0.4 * (seed % 3 - 1) * (label == "fresh")  # noqa: E731
    study = tables.write(tmp_path / "grown", tables.preset("multistage", seeds=tuple(range(7))), level)
    (study.directory / "planned.json").write_text("[0, 1, 2, 3, 4]")
    (study.directory / "environment.json").write_text("{}")
    verify.main([str(study.directory), "--by_seeds"])
    shown = capsys.readouterr().out
    gap = [line for line in shown.splitlines() if line.split()[:1] == ["gap"]]
    assert [line.split()[1] for line in gap] == ["2", "3", "4", "5"] and "5 of 5" in gap[-1]
    assert "reproduced at 3 seeds, which is final; 2 seeds beyond the plan are not used" in shown
    collect.collect(study.directory, tmp_path / "small")
    verify.main([str(tmp_path / "small"), "--by_seeds"])
    assert capsys.readouterr().out == shown
