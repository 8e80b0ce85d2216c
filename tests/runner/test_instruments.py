"""Instruments measure the runs of a study at the steps of its stages, and on the images that they train on."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax import diagnostics, lines
from plasticity_jax.analysis.reading import lines as reading
from plasticity_jax.data import batches
from plasticity_jax.diagnostics.subject import Remembering
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner import instruments, schedule
from plasticity_jax.storage import workdir
from plasticity_jax.training.gradient import forward
from tests.support import small
from tests.support.tiny import DATASET, groups, stage, study


def draw(*plan, seeds=(0,), **fields):
    found = groups(*plan, seeds=seeds)
    return {group.name: schedule.draw_up(group, study(**fields), DATASET) for group in found}


# ---- when ----


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({"measure_steps": (0, 1, 2, 4)}, [0, 1, 2, 4]),
        ({"measure_steps": (1, 99)}, [1]),  # the stage has 21 steps
        ({"measure_every": 2}, [14, 21]),
        ({"measure_every": 1, "measure_steps": (0, 7)}, [0, 7, 14, 21]),
        ({}, []),
    ],
)
def test_the_steps_at_which_a_run_is_measured(fields, points):
    times = draw(stage(epochs=3.0, eval_every=0, **fields))["train"]
    assert sorted(times.target(0, epoch) for epoch in times.measured[0]) == points
    assert times.measured[0] <= times.points[0] <= set(times.events)
    assert [times.target(0, epoch) for epoch in times.events] == sorted({0, *points, 21})


def test_runs_with_other_epochs_are_measured_at_their_own_steps():
    half, whole = stage(branch="half", fraction=0.5), stage(branch="whole")
    both = [dataclasses.replace(each, measure_steps=(3,)) for each in (half, whole)]
    times = draw(*both)["train"]
    assert [sorted(times.target(i, e) for e in times.measured[i]) for i in (0, 1)] == [[3], [3]]
    events = [e for e in times.events if e in times.measured[0]]
    assert instruments.due(times, [False] * 2, events[0], np.zeros(2, bool)).tolist() == [True, False]


def test_a_run_that_ends_is_measured_if_its_epochs_are():
    times = draw(stage(branch="a", measure_every=9), stage(branch="b", measure_steps=(1,)))["train"]
    assert instruments.due(times, [False, False], 0.5, np.ones(2, bool)).tolist() == [True, False]
    assert instruments.due(times, [True, False], 0.5, np.ones(2, bool)).tolist() == [False, False]


# ---- on which images ----


def test_the_probe_is_spread_over_the_pool_and_filled_up():
    timetables = draw(stage(measure_every=1), stage(name="half", branch="half", fraction=0.4, measure_every=1))
    (whole,) = instruments.probes(timetables["train"], timetables, 50)
    (half,) = instruments.probes(timetables["half"], timetables, 50)
    pool = timetables["train"].pools[0]
    assert whole.index.shape == half.index.shape == (64,)
    assert whole.weight.sum() == 50 and half.weight.sum() == 40
    np.testing.assert_array_equal(whole.index[:50], pool.indices[::2])
    np.testing.assert_array_equal(whole.label[:50], pool.labels[::2])
    assert set(half.index) == set(timetables["half"].pools[0].indices)


def test_old_images_are_those_of_the_stage_before_for_fresh_runs_too():
    before = stage(name="before", branch="before", fraction=0.5)
    plan = before, stage(branch="fresh", measure_every=1), stage(branch="warm", after="before", measure_every=1)
    timetables = draw(*plan, seeds=(0, 1))
    for row, part in enumerate(instruments.probes(timetables["train"], timetables, 100)):
        shown = timetables["before"].pools[row % 2].indices
        np.testing.assert_array_equal(part.old, np.isin(part.index, shown))
        assert part.old[:100].sum() == 50


# ---- what ----


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A warm start measured by `noise`, and its directory."""
    config = small.config(instruments=("noise",), measure_images=96)
    config.stages.tune.update(measure_steps=(0, 2), measure_every=2)
    directory = tmp_path_factory.mktemp("warm")
    return small.run(config, directory), directory


def test_rows_are_where_the_stage_says(warm):
    for run in ("fresh/seed0", "pretrain+tune/seed1"):
        assert list(small.curve(warm[1], run, "noise_scale")) == [0, 2, 12, 18]
        assert set(small.curve(warm[1], run)) >= {0, 2, 6, 12, 18}
    assert not small.rows(warm[1], "pretrain", metric="noise_scale")


def test_old_and_new_halves_are_told_apart(warm):
    assert small.curve(warm[1], "fresh/seed0", "gradient_norm_ratio")[0] > 0


def test_measuring_changes_no_run(warm, tmp_path):
    plain = small.run(small.config(), tmp_path)
    assert small.hashes(plain) == small.hashes(warm[0])
    for run in small.hashes(plain):
        points = small.curve(tmp_path, run)
        assert points.items() <= small.curve(warm[1], run).items()


def test_the_noise_at_the_start_is_that_of_the_kept_network(warm):
    """On all images of the tuning, for the network that the stage before left."""
    model, params, stats = plasticity_jax.load(warm[1], "pretrain", 0, "pretrain")
    images = batches.normalise(small.TOY.train_images, np.float32(small.TOY.mean), np.float32(small.TOY.std))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def slope(params, image, label):
        def loss(params):
            logits = forward(model, params, stats, image[None], train=False)[0][0]
            return jax.nn.logsumexp(logits) - logits[label]

        return jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]

    gradients = np.asarray(slope(params, images, small.TOY.train_labels), np.float64)
    trace = small.curve(warm[1], "pretrain+tune/seed0", "noise_trace")[0]
    assert trace == pytest.approx(np.var(gradients, axis=0, ddof=1).sum(), rel=1e-4)
    update = small.curve(warm[1], "pretrain+tune/seed0", "noise_of_update")[0]
    assert update == pytest.approx(0.1 * trace / 16, rel=1e-5)  # the rate and the batch of `small.stage`


@pytest.mark.slow
def test_what_an_instrument_remembers_outlives_a_stop(tmp_path, monkeypatch):
    """The rows are those of an uninterrupted study; the memory is the previous measurement."""
    monkeypatch.setattr("plasticity_jax.runner.saver.CHECKPOINT_SHARE", 0)

    def last(subject):
        norm = parameters.norm(subject.params)
        return {"norm": norm, "norm_before": subject.memory}, norm

    def go(directory):
        config = small.single(epochs=2.0, measure_steps=(0, 1, 2, 5))
        config.checkpoint_seconds = 0.0
        given = {"last": Remembering(last, lambda params, probe: jnp.float32(0))}
        return small.run(config, directory, instruments=given)

    go(tmp_path / "whole")
    with monkeypatch.context() as patch:
        measure, calls = Programs.measure, iter(range(9))

        def stopping(*args):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return measure(*args)

        patch.setattr(Programs, "measure", stopping)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "stopped")
    go(tmp_path / "stopped")
    assert small.tables(tmp_path / "stopped") == small.tables(tmp_path / "whole")
    norms, before = (small.curve(tmp_path / "whole", "train/seed0", name, "train") for name in ("norm", "norm_before"))
    assert list(norms) == [0, 1, 2, 5] and list(before.items()) == list(zip([1, 2, 5], norms.values(), strict=False))


def test_the_plan_says_what_measuring_costs(capsys, tmp_path):
    config = small.config(instruments=("noise",), measure_images=40)
    config.stages.tune.update(measure_steps=(0, 1, 2))
    small.run(config, tmp_path, dry_run=True)
    shown = capsys.readouterr().out
    cost = 4 * 3 * 40 * diagnostics.PASSES["noise"]
    assert f"measured 3 times on 40 images, passes over these: noise {diagnostics.PASSES['noise']:g}; in all" in shown
    assert f"training images in all, and instruments cost as much as {cost:,.0f}" in shown
    assert shown.count("measured") == 1  # not the stage before
    config.stages.tune.measure_steps = ()
    small.run(config, tmp_path, dry_run=True)
    assert "measured" not in capsys.readouterr().out


def test_the_plan_counts_the_programs_of_instruments(warm, capsys, tmp_path):
    config = small.config(instruments=("noise",), measure_images=96)
    config.stages.tune.update(measure_steps=(0, 2), measure_every=2)
    small.run(config, tmp_path, dry_run=True)
    counted = workdir.read_json(warm[1] / "status.json")["compilations"]
    assert f"{counted} programs to compile" in capsys.readouterr().out


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="instruments.*noise"):
        small.run(small.config(instruments=("nois",)), tmp_path)


def test_the_line_between_two_kept_networks(warm):
    """Its ends have the losses of the networks themselves, on all images that the second one trained on."""
    which = {"branch": "pretrain+tune", "seed": 0}
    before = {"branch": "pretrain", "seed": 0, "stage": "pretrain"}
    line = plasticity_jax.connectivity((warm[1], before), (warm[1], which), points=5, dataset=small.TOY)
    assert len(line["loss"]) == 5 and line["barrier"] >= 0
    images = batches.normalise(small.TOY.train_images, np.float32(small.TOY.mean), np.float32(small.TOY.std))
    for place, run in ((0, before), (-1, which)):
        model, params, stats = plasticity_jax.load(warm[1], **run)
        logits = np.asarray(forward(model, params, stats, images, train=False)[0], np.float64)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), small.TOY.train_labels]
        assert line["loss"][place] == pytest.approx(losses.mean(), rel=1e-4)


def test_the_lines_of_all_seeds_are_written_beside_the_results(warm, tmp_path, monkeypatch, capsys):
    measured = lines.measure(warm[1], images=32, dataset=small.TOY)
    assert (measured["from"], measured["to"], list(measured["loss"])) == ("fresh", "pretrain+tune", ["0", "1"])
    ends = [(warm[1], {"branch": branch, "seed": 1}) for branch in ("fresh", "pretrain+tune")]
    assert measured["loss"]["1"] == plasticity_jax.connectivity(*ends, images=32, dataset=small.TOY)["loss"]
    monkeypatch.setattr(lines, "measure", lambda *asked: measured)
    (tmp_path / "study").mkdir()
    lines.main([str(tmp_path / "study")])
    assert "from fresh to pretrain+tune, 2 seeds" in capsys.readouterr().out
    stored = reading.read(tmp_path / "study")
    assert stored.loss[1] == tuple(measured["loss"]["1"]) and (stored.start, stored.end) == ("fresh", "pretrain+tune")
    assert reading.read(tmp_path) is None


@pytest.mark.slow
def test_fresh_targets_are_fitted_in_pairs_without_touching_the_run(warm):
    """The fresh branch is the same beside each network of a seed, and the run's directory is unchanged."""
    before = small.tables(warm[1])
    given = {"seed": 0, "dataset": small.TOY, "steps": 30, "images": 32}
    tuned, half = (plasticity_jax.trainability(warm[1], branch, **given) for branch in ("pretrain+tune", "fresh"))
    assert tuned["fresh"] == half["fresh"] and tuned["aged"] != half["aged"] != half["fresh"]
    for curves in (tuned["aged"], tuned["fresh"]):
        assert len(curves["loss"]) == len(curves["accuracy"]) == 15  # two steps per epoch
        assert curves["loss"][-1] < curves["loss"][0]
    assert small.tables(warm[1]) == before
