"""The metric, the intervals and the paired gap, against numbers computed by hand or by scipy.stats."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from plasticity_jax.storage import results

PERCENT = st.floats(0, 100)


def rows(values, per_epoch=10, metric="test_accuracy"):
    """One evaluation per epoch, epoch 0 first."""
    return [{"metric": metric, "step": epoch * per_epoch, "value": value} for epoch, value in enumerate(values)]


def run(branch, seed, accuracy, status="finished", **hparams):
    name = f"{branch}/seed{seed}"
    return {
        "run": name,
        "seed": seed,
        "branch": branch,
        "hparams": hparams,
        "status": status,
        "test_accuracy": accuracy,
    }


def test_score_is_the_mean_of_the_last_fifth():
    curve = [float(epoch) for epoch in range(501)]
    assert results.score(rows(curve, per_epoch=391), 0.2) == np.mean(curve[401:])


@given(st.integers(1, 200), st.integers(1, 1000))
def test_score_takes_exactly_a_fifth_whatever_the_rounding(fifth, per_epoch):
    curve = [0.0] * (4 * fifth + 1) + [100.0] * fifth
    assert results.score(rows(curve, per_epoch), 0.2) == 100.0
    curve[4 * fifth + 1] = 0.0
    assert results.score(rows(curve, per_epoch), 0.2) < 100.0


def test_score_always_has_the_final_evaluation():
    assert results.score(rows([1.0, 2.0, 3.0]), 1e-6) == 3.0
    assert results.score(rows([7.0]), 0.2) == 7.0  # a stage without steps


def test_score_weighs_sparse_and_dense_evaluations_as_they_come():
    assert (
        results.score([{"metric": "test_accuracy", "step": s, "value": v} for s, v in [(0, 0), (90, 4), (100, 8)]], 0.2)
        == 6
    )


def test_score_looks_at_test_accuracy_alone():
    assert results.score(rows([1.0, 2.0]) + rows([50.0, 60.0, 70.0], metric="train_accuracy"), 1.0) == 2.0


@pytest.mark.parametrize("unusable", [[], rows([1.0], metric="train_loss"), rows([1.0, None]), rows([1.0, math.nan])])
def test_score_without_a_number_is_nan(unusable):
    assert math.isnan(results.score(unusable, 0.2))


@given(st.lists(PERCENT, min_size=2, max_size=9))
def test_interval_is_the_one_of_scipy_stats(values):
    if np.ptp(values) < 1e-3:
        values = [values[0] + 1.0, *values[1:]]
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(results.interval(values), expected, rtol=1e-9, atol=1e-9)


def test_interval_of_another_level():
    values = [1.0, 2.0, 4.0]
    expected = stats.t.interval(0.999, 2, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(results.interval(values, 0.999), expected, rtol=1e-9)


def test_interval_of_few_or_equal_values():
    assert results.interval([]) == results.interval([3.0]) == [None, None]
    assert results.interval([3.0, 3.0, 3.0]) == [None, None]


def test_summarise_pairs_by_seed():
    """A gap of one point is visible only in pairs if the seeds are ten points apart."""
    runs = [run("fresh", seed, 40.0 + 10 * seed + 1 + 0.1 * seed) for seed in range(4)]
    runs += [run("warm", seed, 40.0 + 10 * seed) for seed in reversed(range(4))]
    result = results.summarise(runs, "fresh")
    assert list(result["branches"]) == ["fresh", "warm"]
    assert result["branches"]["warm"]["mean"] == 55.0
    assert result["branches"]["warm"]["sd"] == pytest.approx(np.std([40, 50, 60, 70], ddof=1))
    assert (result["gap"]["control"], result["gap"]["treatment"], result["gap"]["n"]) == ("fresh", "warm", 4)
    paired = stats.ttest_rel([41, 51.1, 61.2, 71.3], [40, 50, 60, 70]).confidence_interval(0.95)
    assert result["gap"]["mean"] == pytest.approx(1.15)
    assert result["gap"]["ci95"] == pytest.approx([paired.low, paired.high])
    assert result["gap"]["ci95"][0] > 0.5


@pytest.mark.parametrize("lost", [("failed", 99.0), ("finished", None), ("finished", math.nan)])
def test_a_run_without_a_result_leaves_its_pair(lost):
    status, accuracy = lost
    runs = [run("fresh", s, 50.0 + s) for s in range(3)] + [run("warm", s, 48.0 + s) for s in range(2)]
    runs.append(run("warm", 2, accuracy, status))
    result = results.summarise(runs, "fresh")
    assert [result["branches"][name]["n"] for name in ("fresh", "warm")] == [3, 2]
    assert (result["gap"]["mean"], result["gap"]["n"]) == (2.0, 2)


def test_seeds_missing_on_one_side_leave_the_pair():
    runs = [run("fresh", s, 50.0) for s in (0, 1, 2)] + [run("warm", s, 40.0) for s in (1, 2, 3)]
    assert results.summarise(runs, "fresh")["gap"]["n"] == 2


def test_summarise_with_nothing_to_compare():
    alone = results.summarise([run("fresh", 0, 50.0)], "fresh")
    assert alone["gap"] is None and alone["contrasts"] == []
    assert alone["branches"]["fresh"] == {"mean": 50.0, "sd": None, "n": 1, "ci95": [None, None]}
    dead = results.summarise([run("fresh", 0, None, "failed"), run("warm", 0, 40.0)], "fresh")
    assert dead["gap"] == {
        "control": "fresh",
        "treatment": "warm",
        "mean": None,
        "sd": None,
        "n": 0,
        "ci95": [None, None],
    }
    assert results.summarise([run("warm", 0, 50.0), run("hot", 0, 50.0)], "fresh")["gap"] is None
    assert results.summarise([], "fresh") == {"branches": {}, "gap": None, "contrasts": []}


def test_every_other_branch_has_its_contrast():
    runs = [run(b, s, value + s) for s in range(2) for b, value in [("warm", 40.0), ("fresh", 45.0), ("reset", 44.0)]]
    result = results.summarise(runs, "fresh")
    assert [(c["treatment"], c["mean"]) for c in result["contrasts"]] == [("warm", 5.0), ("reset", 1.0)]
    assert result["gap"] == result["contrasts"][0]


def test_points_of_a_grid_are_compared_with_their_own_control():
    points = [(0.1, 10.0), (0.01, 20.0)]
    runs = [run("fresh", s, 50.0 + up, lr=lr) for lr, up in points for s in range(2)]
    runs += [run("warm", s, 49.0, lr=lr) for lr, _ in points for s in range(2)]
    result = results.summarise(runs, "fresh")
    assert list(result["branches"]) == ["fresh[lr=0.1]", "fresh[lr=0.01]", "warm[lr=0.1]", "warm[lr=0.01]"]
    assert [(c["control"], c["treatment"], c["mean"]) for c in result["contrasts"]] == [
        ("fresh[lr=0.1]", "warm[lr=0.1]", 11.0),
        ("fresh[lr=0.01]", "warm[lr=0.01]", 21.0),
    ]


def test_a_control_shared_by_a_grid_is_compared_with_every_point():
    runs = [run("fresh", s, 50.0) for s in range(2)]
    runs += [run("warm", s, 50.0 - lr, lr=lr) for lr in (1, 2) for s in range(2)]
    assert [c["mean"] for c in results.summarise(runs, "fresh")["contrasts"]] == [1.0, 2.0]


@given(st.lists(st.one_of(st.none(), PERCENT), max_size=4), st.lists(PERCENT, max_size=4), PERCENT)
def test_the_gap_ignores_what_a_seed_adds_to_both_sides(fresh, warm, offset):
    def gap(by):
        runs = [run("fresh", s, v if v is None else v + by * s) for s, v in enumerate(fresh)]
        return results.summarise(runs + [run("warm", s, v + by * s) for s, v in enumerate(warm)], "fresh")["gap"]

    plain, shifted = gap(0.0), gap(offset)
    if plain is None or plain["mean"] is None:
        assert plain == shifted
    else:
        assert shifted["mean"] == pytest.approx(plain["mean"], abs=1e-6)
        assert shifted["n"] == plain["n"]


def test_summary_is_strict_json():
    runs = [run("fresh", 0, 50.0), run("warm", 0, math.nan), run("hot", 0, None, "failed")]
    result = results.summarise(runs, "fresh")
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_table_reads_as_written():
    runs = [run("fresh", s, 50.0 + s) for s in range(3)] + [run("pretrain+tune", s, 48.0 + 2 * s) for s in range(2)]
    runs.append(run("pretrain+tune", 2, None, "failed"))
    assert results.table({**results.summarise(runs, "fresh"), "runs": runs}).splitlines() == [
        "test accuracy (%)",
        "branch                    mean     sd    n  95% interval",
        "fresh                    51.00   1.00    3  [48.52, 53.48]",
        "pretrain+tune            49.00   1.41    2  [36.29, 61.71]",
        "",
        "gap                       mean     sd    n  95% interval, paired t",
        "fresh - pretrain+tune     1.50   0.71    2  [-4.85, 7.85]",
        "",
        "failed, left out (1): pretrain+tune/seed2",
    ]


def test_table_of_one_branch_and_one_seed_has_no_gap():
    text = results.table(results.summarise([run("fresh", 0, 50.0)], "fresh"))
    assert text.splitlines()[-1] == "fresh     50.00      -    1  -"
    assert "gap" not in text


def test_table_stays_within_100_columns():
    keys = {"stages.pretrain.optim.learning_rate": 1e-5, "stages.tune.branches.pretrain+tune.optim.weight_decay": 1e-5}
    runs = [run(b, s, 100.0, "finished" if s < 2 else "failed", **keys) for b in ("fresh", "warm") for s in range(20)]
    lines = results.table({**results.summarise(runs, "fresh"), "runs": runs}).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("100.00" in line for line in lines) == 2  # one line for each branch
