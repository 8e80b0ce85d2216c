"""A stream of tasks: each task depends on the seed and its number alone, in training and in evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.config import spec
from plasticity_jax.data import tasks
from plasticity_jax.runner import eval_sets, schedule
from plasticity_jax.training import evaluation, resets, state, step
from tests.support.tiny import DATASET, IMAGES, MLP, SHAPE, changed, first_state, groups, same, stage, study

ALL = np.ones(4, np.bool_)
LABELS = tasks.tasks(spec.Tasks("labels", 2), 0, 5, ALL)
PIXELS = tasks.tasks(spec.Tasks("pixels", 2), 0, 5, ALL)
labels = jax.jit(tasks.labels)
order = jax.jit(tasks.order, static_argnums=2)
train = jax.jit(step.advance, static_argnames=("model", "stage"))


def test_without_a_change_there_is_no_stream():
    assert tasks.tasks(spec.Tasks("none", 3), 0, 5, ALL) == ()
    assert tasks.tasks(spec.Tasks("labels", 3), 0, 5, ALL, trained=False) == ()  # true labels on other images


def test_a_task_lasts_its_epochs():
    assert (LABELS.steps, PIXELS.steps) == (10, 10)
    assert [int(tasks.learned(PIXELS, jnp.int32(n))) for n in (0, 1, 10, 11, 20, 21)] == [0, 0, 0, 1, 1, 2]


def test_labels_are_uniform_and_drawn_anew():
    at = jnp.arange(2000)
    first, second = np.asarray(labels(LABELS, 0, at)), np.asarray(labels(LABELS, 1, at))
    counts = np.bincount(first, minlength=4)
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
    assert abs(np.mean(first == second) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)
    np.testing.assert_array_equal(np.asarray(labels(LABELS, 0, at[::-1][:7])), first[::-1][:7])  # in any order
    other = tasks.tasks(spec.Tasks("labels", 2), 1, 5, ALL)
    assert np.mean(np.asarray(labels(other, 0, at)) == first) < 0.35


def test_labels_are_of_the_classes_that_are_told_apart():
    some = tasks.tasks(spec.Tasks("labels", 2), 0, 5, np.array([False, True, False, True]))
    assert set(np.asarray(labels(some, 3, jnp.arange(50)))) == {1, 3}


def test_pixels_change_places_alike_in_all_images_and_channels():
    places = np.asarray(order(PIXELS, 4, 6))
    assert sorted(places) == list(range(6)) and list(places) != list(np.asarray(order(PIXELS, 5, 6)))
    images = np.arange(2 * 2 * 3 * 2).reshape(2, 2, 3, 2)
    moved = np.asarray(tasks.moved(images, places)).reshape(2, 6, 2)
    np.testing.assert_array_equal(moved, images.reshape(2, 6, 2)[:, places])


RESET = changed(stage().reset, modules=("head",))  # and all moments


def group_of(change):
    (group,) = groups(stage(tasks=spec.Tasks(change, 1), epochs=3.0, shuffle=False, reset=RESET, momentum=0.9))
    return schedule.draw_up(group, study(validation_images=10), DATASET)


def row_of(times, like=None):
    """The row of the single run; without the structure of its state, that of a run whose reset is not repeated."""
    return jax.tree.map(lambda leaf: leaf[0], schedule.tasks(times, 100, like))


@pytest.mark.parametrize("change", [pytest.param("labels", marks=pytest.mark.slow), "pixels"])
def test_each_task_is_trained_on_as_it_is_drawn(change):
    """During a task, a stream trains like a plain stage on the images and labels of that task."""
    times = group_of(change)
    record, row = times.group.stage, row_of(times)
    began = first_state(MLP, record).replace(step=row.epoch_steps)  # where the second task begins
    after = train(began, (row, began.step + 3), IMAGES, model=MLP, stage=record)
    arrays = IMAGES.images, row.source.labels, row.source.indices
    images, drawn = jax.jit(tasks.seen)(row.source.tasks, 1, *arrays)
    single = row._replace(source=row.source._replace(tasks=(), labels=drawn))
    alike = train(began, (single, began.step + 3), IMAGES.replace(images=images), model=MLP, stage=record)
    assert same(after.params, alike.params) and not same(after.params, began.params)


@pytest.mark.slow
def test_the_reset_happens_at_the_start_of_every_later_task_however_calls_are_cut():
    times = group_of("pixels")
    record = times.group.stage
    began = first_state(MLP, record)
    row = row_of(times, began)
    n, none = int(row.epoch_steps), row_of(times)
    before = train(began, (row, n), IMAGES, model=MLP, stage=record)
    assert same(before.params, train(began, (none, n), IMAGES, model=MLP, stage=record).params)  # not of the first
    draw = jax.jit(lambda key: state.init_network(MLP, jax.random.fold_in(jax.random.fold_in(key, 9), 1), SHAPE))
    fresh = draw(row.key)
    expected = jax.jit(resets.again)(before, *fresh, row.reset)
    assert same(expected.params["layer1"], before.params["layer1"])
    assert same(expected.params["head"], fresh[0]["head"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(expected.opt))
    second = train(expected, (none, 2 * n), IMAGES, model=MLP, stage=record)
    whole = train(before, (row, 2 * n), IMAGES, model=MLP, stage=record)
    assert same(second.params, whole.params)
    for until in (n - 1, n + 1, 2 * n - 1, 2 * n):
        began = train(began, (row, until), IMAGES, model=MLP, stage=record)
    assert same(began.params, whole.params)


@pytest.mark.slow
def test_evaluation_shows_the_task_that_was_learned_last():
    times = group_of("pixels")
    scored = eval_sets.scored_on(times, study(validation_images=10), 100)
    assert scored["test"].own and scored["validation"].own
    source = jax.tree.map(lambda leaf: leaf[0], scored["test"].source)
    learned = first_state(MLP).replace(step=2 * source.tasks.steps)  # the end of the second task
    test = IMAGES.replace(images=jnp.asarray(DATASET.test_images))
    evaluate = jax.jit(functools.partial(evaluation.evaluate_batch, model=MLP, batch=50))
    result = evaluate(learned, source, 0, test)
    places = order(source.tasks, 1, 64)
    shown = test.replace(images=tasks.moved(test.images, places))
    plain = evaluate(learned, source._replace(tasks=()), 0, shown)
    still = evaluate(learned, source._replace(tasks=()), 0, test)
    assert same(result, plain) and not same(result, still)


def test_what_was_trained_on_has_the_labels_of_its_task_and_the_test_set_its_own():
    times = group_of("labels")
    scored = eval_sets.scored_on(times, study(train_eval_images=8), 100)
    assert not scored["test"].own and scored["test"].source.tasks == ()
    assert scored["train_eval"].source.tasks != ()
    probes = eval_sets.probes(times)
    assert probes["train"].tasks != () and probes["test"].tasks == ()
