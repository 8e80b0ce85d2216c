"""Lengths and times of evaluation are as the stages say, also if the runs of a group differ."""

import numpy as np
import pytest

from plasticity_jax.data import batches
from plasticity_jax.errors import ConfigError, LabError
from plasticity_jax.runner import schedule
from tests.support.tiny import DATASET, PATCH, changed, groups, stage, study


def draw(*plan, seeds=(0,), group=-1, **fields):
    return schedule.draw_up(groups(*plan, seeds=seeds)[group], study(**fields), DATASET)


# ---- digests ----


def digest(plan, **fields):
    (found,) = schedule.digests(draw(plan, **fields)).values()
    return found


OTHER = [
    ({}, {"seeds": (1,)}),
    ({}, {"validation_images": 10}),
    ({}, {"train_images": 50}),
    ({}, {"test_images": 20}),
    ({"fraction": 0.5}, {}),
    ({"label_noise": 0.2}, {}),
    ({"recipe": "blend", "fraction": 0.5}, {}),
    ({"recipe": "split", "splits": 2}, {}),
    ({"classes": (0, 2)}, {}),
    ({"patch": changed(PATCH, share=0.5)}, {}),
]


@pytest.mark.parametrize(("fields", "study_fields"), OTHER, ids=str)
def test_other_images_have_another_digest(fields, study_fields):
    assert digest(stage(**fields), **study_fields) != digest(stage())


@pytest.mark.parametrize("fields", [{"learning_rate": 1.0}, {"epochs": 9.0}, {"augment": "crop"}], ids=str)
def test_the_same_images_have_the_same_digest(fields):
    assert digest(stage(**fields)) == digest(stage())


def test_a_digest_stays_what_it_was():
    plan = stage(label_noise=0.25, classes=(1, 3), patch=changed(PATCH, share=0.5))
    assert digest(plan, validation_images=20) == "c88afb448e2c57715ae17e1566db996fcf4e34934f03c55b43862fb9f06c4a40"


def test_digests_are_compared_run_by_run(tmp_path):
    times = draw(stage(), seeds=(0, 1))
    digests = schedule.digests(times)
    schedule.check_digests(times, {"pools": digests}, tmp_path)
    schedule.check_digests(times, {"pools": {**digests, "train/seed7": "of a run that is no more"}}, tmp_path)
    schedule.check_digests(times, {}, tmp_path)  # of an earlier version
    with pytest.raises(LabError, match=r"stage train .* trained on other images .*train/seed1; 1 of 2 runs") as error:
        schedule.check_digests(times, {"pools": {**digests, "train/seed1": "0" * 64}}, tmp_path)
    assert "\n" not in str(error.value)


# ---- lengths ----


@pytest.mark.parametrize(
    ("fields", "images", "steps"),
    [
        ({}, 100, 7),  # the last batch is filled up
        ({"batch_size": 20}, 100, 5),
        ({"batch_size": 99}, 100, 2),
        ({"batch_size": 400}, 100, 1),
        ({"fraction": 0.5}, 50, 4),
        ({"fraction": 0.5, "recipe": "blend"}, 100, 7),  # an epoch of a blend is one of all images
        ({"recipe": "split", "splits": 4, "part": 1, "uniform": 0.0}, 25, 2),
    ],
)
def test_steps_of_an_epoch(fields, images, steps):
    found = draw(stage(**fields))
    assert [len(pool.indices) for pool in found.pools] == [images]
    assert found.epoch_steps == [steps]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"epochs": 3.0}, 21),
        ({"epochs": 2.2}, 15),
        ({"epochs": 0.01}, 1),
        ({"epochs": 3.0, "steps": 5}, 5),
        ({"epochs": 0.0, "steps": 30}, 30),
    ],
)
def test_steps_of_a_stage(fields, steps):
    assert draw(stage(**fields)).steps == [steps]


def test_train_images_and_validation_images():
    times = draw(stage(batch_size=10), seeds=(0, 1), train_images=40, validation_images=15)
    assert times.epoch_steps == [4, 4]
    for pool, held_out in zip(times.pools, times.held_out, strict=True):
        assert len(held_out) == 15 and not set(held_out) & set(pool.indices)
    assert set(times.held_out[0]) != set(times.held_out[1])


# ---- when to evaluate ----


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({"eval_every": 1, "epochs": 3.0}, [0, 1, 2, 3]),
        ({"eval_every": 3}, [0, 3, 6, 9, 10]),
        ({"eval_every": 5}, [0, 5, 10]),
        ({"eval_every": 99}, [0, 10]),
        ({"eval_every": 0}, [0, 10]),
        ({"eval_every": 0, "eval_tail": 1}, [0, 10]),
        ({"eval_every": 5, "eval_tail": 1}, [0, 5, 8, 9, 10]),  # the window is after 7.5
        ({"eval_every": 4, "eval_tail": 3}, [0, 4, 8, 9, 10]),
        ({"eval_every": 1, "epochs": 2.2}, [0, 1, 2, 15 / 7]),
        ({"eval_every": 1, "epochs": 0.3}, [0, 2 / 7]),
        ({"eval_every": 1, "steps": 16}, [0, 1, 2, 16 / 7]),
        ({"eval_every": 1, "steps": 14}, [0, 1, 2]),
    ],
)
def test_points(fields, points):
    found = draw(stage(**{"epochs": 10.0} | fields))
    assert sorted(found.points[0]) == pytest.approx(points) == found.events
    assert found.target(0, found.events[-1]) == found.steps[0]


def test_the_window_opens_behind_its_border():
    """As in the metric: of 20 epochs and a quarter, 16 to 20."""
    assert draw(stage(epochs=20.0, eval_every=20, eval_tail=1)).events == [0, 16, 17, 18, 19, 20]
    assert draw(stage(epochs=20.0, eval_every=20, eval_tail=1), window=0.1).events == [0, 19, 20]


def test_epochs_to_keep_are_events_without_an_evaluation():
    plan = stage(name="pretrain", epochs=9.0, eval_every=0), stage(name="tune", after="pretrain@4")
    times = draw(*plan, group=0)
    assert times.events == [0, 4, 9]
    assert times.points == [{0.0, 9.0}]
    assert times.target(0, 4) == 28


def test_runs_with_uneven_pools_and_lengths():
    short = stage(branch="short", fraction=0.5, epochs=2.0)
    long = stage(branch="long", epochs=3.5, eval_every=2)
    times = draw(short, long, seeds=(0, 1))
    assert times.epoch_steps == [4, 4, 7, 7]
    assert times.steps == [8, 8, 24, 24]
    assert [sorted(points) for points in times.points[::2]] == [[0, 1, 2], [0, 2, 24 / 7]]
    assert times.events == [0, 1, 2, 24 / 7]
    assert [[times.target(run, epoch) for epoch in times.events] for run in (0, 2)] == [[0, 4, 8, 8], [0, 7, 14, 24]]
    assert times.images() == 16 * 2 * (8 + 24)


@pytest.mark.parametrize("steps", range(1, 60, 7))
@pytest.mark.parametrize("batch", [3, 7, 13, 31])
def test_the_end_is_hit_exactly(steps, batch):
    found = draw(stage(steps=steps, batch_size=batch))
    assert found.target(0, found.events[-1]) == steps
    assert [found.target(0, e) for e in found.events[:-1]] == [int(e) * found.epoch_steps[0] for e in found.events[:-1]]


@pytest.mark.parametrize(
    ("record", "fields", "message"),
    [
        (stage(), {"test_images": 51}, "config.test_images=51: tiny has 50 test images"),
        (stage(), {"train_images": 90, "validation_images": 11}, "exceed the 100 training images"),
        (stage(), {"validation_images": 100}, "validation_images=100"),
        (stage(recipe="splt"), {}, "data.recipe='splt'.*split"),
        (stage(fraction=0.001), {}, "no image is left"),
    ],
)
def test_errors(record, fields, message):
    with pytest.raises(ConfigError, match=message) as error:
        draw(record, **fields)
    assert "\n" not in str(error.value)


# ---- rows of the run axis ----


def test_rows_of_a_leg():
    blend = stage(branch="blend", recipe="blend", fraction=0.2, gamma=0.9, learning_rate=0.3, until_accuracy=0.5)
    times = draw(stage(branch="a", fraction=0.5), blend, seeds=(0, 1))
    rows = schedule.tasks(times, 120)
    assert rows.source.indices.shape == rows.source.labels.shape == (4, 120)
    assert rows.source.size.tolist() == [50, 50, 100, 100] and rows.source.base.tolist() == [50, 50, 20, 20]
    assert rows.source.gamma.tolist() == pytest.approx([0, 0, 0.9, 0.9])
    assert rows.source.replacement.tolist() == [False, False, True, True]
    assert rows.steps.tolist() == times.steps and rows.epoch_steps.tolist() == times.epoch_steps
    assert rows.hyper.learning_rate.tolist() == pytest.approx([0.1, 0.1, 0.3, 0.3])
    assert rows.until_accuracy.tolist() == [0, 0, 0.5, 0.5]
    for i, pool in enumerate(times.pools):
        n = len(pool.indices)
        np.testing.assert_array_equal(rows.source.indices[i, :n], pool.indices)
        np.testing.assert_array_equal(rows.source.labels[i, :n], DATASET.train_labels[pool.indices])


def test_keys_are_those_of_the_seed_and_the_stage_name():
    """Branches of a seed see the same batches."""
    branches = stage(name="tune", branch="a"), stage(name="tune", branch="b", learning_rate=0.3)
    keys = schedule.tasks(draw(*branches, seeds=(0, 3)), 100).key
    expected = [batches.key(seed, "stage", "tune") for seed in (0, 3, 0, 3)]
    assert [bool(a == b) for a, b in zip(keys, expected, strict=True)] == [True] * 4
    assert keys[0] != keys[1] and keys[0] != schedule.tasks(draw(stage(name="other")), 100).key[0]


@pytest.mark.parametrize(
    ("data", "gamma", "replacement"),
    [
        ({}, 0.0, False),
        ({"replacement": True}, 0.0, True),
        ({"recipe": "blend", "gamma": 0.75}, 0.75, True),
        ({"recipe": "split", "splits": 2, "part": 2, "gamma": 0.75}, 0.0, False),
    ],
)
def test_source(data, gamma, replacement):
    data = changed(stage().data, **data)
    pool = schedule.subsets.pool(data, 0, DATASET.train_labels, DATASET.classes)
    source = schedule.source(pool, data, 130)
    assert (source.gamma, source.replacement, source.size) == (np.float32(gamma), replacement, len(pool.indices))
    assert source.indices.shape == (130,) and source.indices.dtype == source.labels.dtype == np.int32


def test_plain_source():
    found = schedule.plain_source(np.array([5, 3, 4]), DATASET.train_labels)
    assert found.indices.tolist() == [5, 3, 4] and found.labels.tolist() == DATASET.train_labels[[5, 3, 4]].tolist()
    assert found.size == 3
