"""Which runs have rows at an event of a group, and which are recorded to their end by then."""

import numpy as np

from plasticity_jax.runner import evaluation, schedule
from tests.support.tiny import DATASET, groups, stage, study


def test_a_run_has_rows_at_its_own_points_and_where_it_has_ended():
    """Three runs after three epochs: evaluated every epoch; only at the end, but stopped early; only at the end."""
    often, seldom = stage(branch="often", epochs=9.0), stage(branch="seldom", epochs=9.0, eval_every=0)
    (group,) = groups(often, seldom, seeds=(0, 1))
    times = schedule.draw_up(group, study(), DATASET)
    assert [run.id for run in group.runs] == ["often/seed0", "often/seed1", "seldom/seed0", "seldom/seed1"]
    steps = np.array([21, 21, 15, 21])
    values = {"test_accuracy": np.array([1.0, 2.0, 3.0, 4.0])}
    rows, closed = evaluation.rows(
        group, times, [True, False, False, False], 3.0, steps, np.array([True, False, True, False]), values
    )
    assert [(row["run"], row["step"], row["value"]) for row in rows] == [
        ("often/seed1", 21, 2.0),
        ("seldom/seed0", 15, 3.0),
    ]
    assert closed == [True, False, True, False]
