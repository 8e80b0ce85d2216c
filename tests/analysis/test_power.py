"""How many seeds a claim needs: textbook numbers, a simulation of the rule itself, and the command."""

import json

import numpy as np
import pytest
from scipy import stats as distributions

from plasticity_jax.analysis import power
from plasticity_jax.analysis.effects import stats

RESULTS = "analysis/results"


@pytest.mark.parametrize(("size", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_of_a_paired_t_test_are_those_of_cohen(size, needed):
    """Cohen 1988, two-sided at 5 %, power 80 %: 199, 34 and 15 pairs for a small, medium and large effect."""
    assert power.seeds(stats.ABOVE, size, 1.0) == power.seeds(stats.BELOW, size, 1.0) == needed
    assert power.power(stats.ABOVE, size, 1.0, needed) >= 0.8 > power.power(stats.ABOVE, size, 1.0, needed - 1)


@pytest.mark.parametrize("direction", stats.DIRECTIONS)
@pytest.mark.parametrize("n", [3, 10])
def test_power_is_how_often_the_rule_says_reproduced(direction, n):
    size, sd, draws = 1.0, 0.8, 20_000
    centre = {stats.ABOVE: size, stats.BELOW: -size}.get(direction, 0.0)
    values = np.random.default_rng(n).normal(centre, sd, (draws, n))
    half = distributions.t.ppf((1 + stats.level(direction)) / 2, n - 1) * values.std(1, ddof=1) / np.sqrt(n)
    lows, highs = values.mean(1) - half, values.mean(1) + half
    verdicts = [stats.verdict(direction, size, low, high) for low, high in zip(lows, highs, strict=True)]
    share = verdicts.count(stats.REPRODUCED) / draws
    assert power.power(direction, size, sd, n) == pytest.approx(share, abs=4 * np.sqrt(0.25 / draws))


def test_ten_seeds_with_a_scatter_of_a_point_and_a_half_hardly_show_equality():
    assert power.power(stats.WITHIN, 1.0, 1.4, 10) == pytest.approx(0.366, abs=0.005)  # simulated: 0.3659
    assert power.power(stats.WITHIN, 1.0, 1.4, 1) == 0 and power.seeds(stats.WITHIN, 0.001, 10.0) is None


def test_the_bound_of_a_standard_deviation_holds_four_times_in_five():
    values = np.random.default_rng(0).normal(size=(20_000, 5))
    held = np.mean(values.std(1, ddof=1) * power.bound(1.0, 5) >= 1)
    assert held == pytest.approx(0.8, abs=0.012)


@pytest.mark.slow
def test_the_command_says_it_of_published_results(tmp_path, capsys):
    power.main([f"{RESULTS}/multistage", "--json", str(tmp_path / "new" / "power.json")])
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "new" / "power.json").read_text())
    gap = next(row for row in rows if row["claim"] == "gap")
    assert gap["needed"] == power.seeds("above", 1.0, gap["sd"]) <= gap["at_most"]
    assert gap["upper"] > gap["sd"] > 0 and f" {gap['sd']:.2f} " in shown and "seeds for a power of 80%" in shown


def test_only_inconclusive_claims_are_in_the_table_if_asked(capsys):
    power.main([f"{RESULTS}/multistage", "--inconclusive", "--markdown"])
    head, rule, *claims = capsys.readouterr().out.strip().splitlines()
    assert head.startswith("| study | claim | n |") and set(rule) <= set("|-:")
    assert len(claims) == 2 and all(line.count("|") == head.count("|") for line in claims)
    assert not any("lower test accuracy than a fresh one" in line for line in claims)  # which is reproduced
    needed = [int(line.split("|")[6]) for line in claims]
    assert needed == sorted(needed)


@pytest.mark.parametrize(
    ("argument", "line"), [("--points=0", "must be above 0"), ("--power=1", "must be in [0.5, 1)")]
)
def test_a_wrong_number_is_one_line(argument, line):
    with pytest.raises(SystemExit, match="analysis.power: ") as caught:
        power.main([f"{RESULTS}/multistage", argument])
    assert line in str(caught.value) and "\n" not in str(caught.value)
