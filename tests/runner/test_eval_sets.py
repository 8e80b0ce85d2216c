"""Every evaluation set has its name in the records, and its numbers are those of the saved network."""

import dataclasses
import functools
import zlib

import jax
import numpy as np
import pytest
import scipy.special

import plasticity_jax
from plasticity_jax.config import spec
from plasticity_jax.data import datasets, patches, subsets
from plasticity_jax.errors import ConfigError
from plasticity_jax.runner import schedule
from plasticity_jax.runner.eval_sets import probes, scored_on
from tests.support import small
from tests.support.tiny import DATASET, PATCH, changed, groups, stage, study

CLASSES = 3
TOY = small.TOY


def measured(network, images, labels, classes=None, chosen=slice(None)):
    """(loss, accuracy) of normalised images, or of the chosen ones, among some classes."""
    logits, labels = np.asarray(apply(*network, np.float32(images)))[chosen], labels[chosen]
    if classes is not None:
        logits = np.where(np.isin(np.arange(CLASSES), classes), logits, -np.inf)
    losses = -scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    return losses.mean(), 100 * np.mean(np.argmax(logits, -1) == labels)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, stats, images):
    out = module.apply({"params": params, "batch_stats": stats}, images, train=False)
    return out[0] if isinstance(out, tuple) else out


paste = jax.jit(patches.paste)


def normalised(images):
    return (images / np.float32(255) - np.float32(TOY.mean)) / np.float32(TOY.std)


def last(directory, run):
    rows = small.rows(directory, "train", run=run)
    return {row["metric"]: row["value"] for row in rows if row["step"] == max(row["step"] for row in rows)}


def check(found, name, loss_and_accuracy):
    loss, accuracy = loss_and_accuracy
    assert found[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
    assert found[f"{name}_accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
def test_some_classes_are_trained_and_tested_alone(tmp_path):
    config = small.single(epochs=2.0)
    config.stages.train.data.classes = (0, 2)
    config.update(seeds=(0, 2), validation_images=30)
    small.run(config, tmp_path)
    chosen = []
    for seed in (0, 2):
        classes = np.random.default_rng([seed, zlib.crc32(b"classes")]).permutation(CLASSES)[:2]
        chosen.append(tuple(sorted(classes)))
        network, values = plasticity_jax.load(tmp_path, "train", seed), last(tmp_path, f"train/seed{seed}")
        tests = np.flatnonzero(np.isin(TOY.test_labels, classes))
        check(values, "test", measured(network, normalised(TOY.test_images), TOY.test_labels, classes, tests))
        held = subsets.held_out(seed, 96, 30)
        held = held[np.isin(TOY.train_labels[held], classes)]
        check(values, "validation", measured(network, normalised(TOY.train_images), TOY.train_labels, classes, held))
    assert len(set(chosen)) == 2  # or nothing shows that seeds differ


@pytest.mark.slow
def test_patches_are_pasted_into_test_images(tmp_path):
    config = small.single(epochs=2.0)
    config.seeds = (1,)
    config.stages.train.data.patch.update(share=0.7, size=3, own=0.5)
    small.run(config, tmp_path)
    network, values = plasticity_jax.load(tmp_path, "train", 1), last(tmp_path, "train/seed1")
    labels = TOY.test_labels
    check(values, "test", measured(network, normalised(TOY.test_images), labels))  # the clean ones
    patch = changed(PATCH, share=0.7, size=3, own=0.5, shared=1.25, alone=0.2, stretch=1.75)
    flags = patches.carried(patch, 1, len(labels), "test")
    p = patches.patches(patch, 1, CLASSES, 1, flags, False)
    slots, key = np.arange(len(labels)), patches.evaluation_key(p)
    pasted = paste(p, key, slots, slots, normalised(TOY.test_images), labels)
    check(values, "patched", measured(network, pasted, labels))
    many, slots = np.resize(labels, 1000), np.arange(1000)
    p = p._replace(flags=np.ones(1000, bool), only=np.bool_(True))
    black = paste(p, key, slots, slots, np.ones((1000, 8, 8, 1), np.float32), many)
    check(values, "patch_only", measured(network, black, many))


def test_further_test_sets_of_an_own_data_set(tmp_path):
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 255, (40, 8, 8, 1), np.uint8), rng.integers(0, 3, 40)
    arrays = (TOY.train_images, TOY.train_labels, TOY.test_images, TOY.test_labels)
    data = datasets.from_arrays("toy", *arrays, probes={"noise": noisy})
    config = small.single(epochs=2.0)
    config.seeds = (0,)
    small.run(config, tmp_path, dataset=data)
    network, values = plasticity_jax.load(tmp_path, "train", 0), last(tmp_path, "train/seed0")
    check(values, "noise", measured(network, normalised(noisy[0]), noisy[1]))
    check(values, "test", measured(network, normalised(TOY.test_images), TOY.test_labels))


def test_the_moving_average_is_evaluated_beside_the_network(tmp_path):
    config = small.single(epochs=2.0, ema=1e-6)
    config.update(seeds=(0,), train_eval_images=20)
    small.run(config, tmp_path / "fast", model=small.Net())
    values = last(tmp_path / "fast", "train/seed0")
    assert values["ema_test_loss"] == pytest.approx(values["test_loss"], rel=1e-3)  # an average over about one step
    assert values["ema_train_eval_loss"] == pytest.approx(values["train_eval_loss"], rel=1e-3)
    config.stages.train.ema = 1 - 1e-6
    small.run(config, tmp_path / "slow", model=small.Net())
    slow = small.curve(tmp_path / "slow", "train/seed0", "ema_test_loss", "train")
    first = small.curve(tmp_path / "slow", "train/seed0", "test_loss", "train")[0]
    assert slow[max(slow)] == pytest.approx(first, rel=1e-3)  # an average over so many steps that it hardly moves


def names(plan, **fields):
    (group,) = groups(plan, seeds=(0, 1))
    asked = study(**fields)
    return scored_on(schedule.draw_up(group, asked, DATASET), asked, 100)


def test_the_test_set_is_shared_where_nothing_differs():
    sets = names(stage(), validation_images=20, train_eval_images=30)
    assert list(sets) == ["test", "validation", "train_eval"]
    assert [sets[name].own for name in sets] == [False, True, True]
    assert sets["test"].length == len(DATASET.test_labels) == 50
    assert sets["train_eval"].source.size.tolist() == [30, 30]


def test_runs_with_classes_of_their_own_have_test_sets_of_their_own():
    test_set = names(stage(classes=(1, 3)))["test"]
    assert test_set.own and test_set.source.classes.sum(axis=1).tolist() == [2, 2]
    for row in (0, 1):
        size = test_set.source.size[row]
        classes = np.unique(test_set.source.labels[row][:size])
        assert classes.tolist() == np.flatnonzero(test_set.source.classes[row]).tolist()


def probed(plan, data=DATASET, seeds=(0, 1), **fields):
    (group,) = groups(plan, seeds=seeds)
    times = schedule.draw_up(group, study(**fields), data)
    return times, probes(times)


def test_probes_are_of_images_that_a_run_trains_on_and_of_its_test_images():
    times, inputs = probed(stage(label_noise=0.5, fraction=0.5), test_images=30)
    assert list(inputs) == ["train", "test"] and inputs["train"].classes == ()
    for row, pool in enumerate(times.pools):
        assert inputs["train"].index[row].tolist() == np.resize(pool.indices, 512).tolist()
        assert inputs["train"].label[row].tolist() == np.resize(pool.labels, 512).tolist()
        assert inputs["test"].index[row].tolist() == np.resize(np.arange(30), 512).tolist()
        assert inputs["test"].label[row].tolist() == DATASET.test_labels[inputs["test"].index[row]].tolist()


def test_probes_follow_the_classes_and_the_member_of_a_stage():
    both = datasets.join([DATASET, dataclasses.replace(DATASET, name="other")])
    for plan, firsts in ((stage(classes=(1, 3)), (0, 0)), (stage(member=2), (100, 50)), (stage(member=1), (0, 0))):
        times, inputs = probed(plan, both if plan.data.member else DATASET)
        for row, run in enumerate(times.group.runs):
            told_apart = schedule.told_apart(run, times.dataset)
            for split, first in zip(("train", "test"), firsts, strict=True):
                assert set(inputs[split].label[row]) == set(np.flatnonzero(told_apart))
                assert inputs[split].index[row].min() >= first
                assert inputs[split].classes[row].tolist() == told_apart.tolist()


def test_a_probe_does_not_depend_on_company():
    plan = stage(classes=(1, 3), tasks=spec.Tasks("pixels", 1))
    _, alone = probed(plan, seeds=(1,))
    _, beside = probed(plan, seeds=(0, 1, 2))
    for split in ("train", "test"):
        leaves = [jax.tree.leaves(found[split]) for found in (alone, beside)]
        assert len(leaves[0]) == 6  # index, label, classes, and of the tasks key, steps and what changes
        for one, many in zip(*leaves, strict=True):
            np.testing.assert_array_equal(one[0], many[1])


def test_images_for_training_that_are_scored_have_no_patches():
    found = names(stage(patch=changed(PATCH, share=0.5)), train_eval_images=10)
    assert list(found) == ["test", "train_eval", "patched", "patch_only"]
    assert found["train_eval"].source.patches == () and found["patched"].source.patches


def test_a_patch_larger_than_the_images_is_refused():
    with pytest.raises(ConfigError, match="data.patch.size=9: the images of tiny are smaller"):
        names(stage(patch=changed(PATCH, share=0.5, size=9)))


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"data.classes=\(2, 5\): give a range of the 4 classes"):
        names(stage(classes=(2, 5)))


def test_a_member_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="data.member=1: tiny joins 0 data sets"):
        names(stage(member=1))


def test_joined_data_sets_are_trained_and_tested_apart():
    other = dataclasses.replace(DATASET, name="other")
    both = datasets.join([DATASET, other])
    (group,) = groups(stage(member=2), seeds=(0,))
    times = schedule.draw_up(group, study(), both)
    assert times.pools[0].indices.min() >= 100 and times.pools[0].labels.min() >= 4
    alone = schedule.draw_up(groups(stage())[0], study(), DATASET)
    np.testing.assert_array_equal(times.pools[0].indices - 100, alone.pools[0].indices)  # the same order as alone
    test_set = scored_on(times, study(), 200)["test"]
    assert test_set.source.indices.min() >= 50 and test_set.source.classes[0].tolist() == [False] * 4 + [True] * 4
