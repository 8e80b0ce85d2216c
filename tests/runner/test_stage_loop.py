"""One group: runs that train together are independent, and begin and end where they should."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import study_config
from plasticity_jax.data import batches, subsets
from plasticity_jax.errors import LabError
from plasticity_jax.models import parameters
from plasticity_jax.runner import prepare
from plasticity_jax.training import state
from tests.support import small

# Alone and in company.

ALONE = "pretrain+tune/seed1"


def crowd(strategy: str) -> ConfigDict:
    """24 runs with different seeds, branches, learning rates and pools."""
    grid = (("stages.tune.optim.learning_rate", (0.1, 0.3)), ("stages.tune.data.fraction", (0.5, 1.0)))
    return small.config(seeds=(0, 1, 2), strategy=strategy, grid=grid)


def lonely(strategy: str) -> ConfigDict:
    """One of these runs, alone."""
    config = small.config(seeds=(1,), strategy=strategy, control="pretrain+tune")
    config.stages.tune.branches = ConfigDict({"pretrain+tune": {"after": "pretrain"}})
    config.stages.tune.optim.learning_rate = 0.3
    config.stages.tune.data.fraction = 0.5
    return config


# By day tests/test_experiment.py has runs beside diverging ones, and tests/runner/test_learning_stages.py a run alone.
@pytest.mark.long
@pytest.mark.parametrize("strategy", ["map", "loop", "vmap", "batched"])
def test_a_run_is_the_same_alone_and_in_company(strategy, tmp_path):
    options = dict(model=small.Net() if strategy in ("map", "batched") else None)  # where convolutions belong
    many = small.run(crowd(strategy), tmp_path / "many", **options)
    one = small.run(lonely(strategy), tmp_path / "one", **options)
    assert len(many["runs"]) == 24
    point = {"learning_rate": 0.3, "fraction": 0.5}
    name = "pretrain+tune,learning_rate=0.3,fraction=0.5/seed1"
    for stage, in_company, alone in [("pretrain", "pretrain/seed1", "pretrain/seed1"), ("tune", name, ALONE)]:
        rows = small.rows(tmp_path / "many", stage, run=in_company)
        expected = small.rows(tmp_path / "one", stage, run=alone)
        assert len(rows) == len(expected) > 0
        if strategy not in ("vmap", "batched"):
            assert small.numbers(rows) == small.numbers(expected)
            continue
        for row, other in zip(rows, expected, strict=True):
            assert all(row[key] == other[key] for key in ("epoch", "step", "metric"))
            assert row["value"] == pytest.approx(other["value"], abs=1e-4)
    if strategy not in ("vmap", "batched"):
        assert small.hashes(many)[name] == small.hashes(one)[ALONE]
    _, params, _ = plasticity_jax.load(tmp_path / "many", "pretrain+tune", 1, hparams=point, **options)
    _, expected, _ = plasticity_jax.load(tmp_path / "one", "pretrain+tune", 1, **options)
    for leaf, other in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-5)


def test_runs_of_one_leg_may_have_pools_of_different_sizes(tmp_path):
    config = small.config(seeds=(0,))
    config.stages.tune.branches["pretrain+tune"] = {"after": "pretrain", "data": {"fraction": 0.4}, "epochs": 4.5}
    result = small.run(config, tmp_path)
    # 96 images are 6 steps an epoch, and 38 are 3, the last of them filled up.
    places = {
        run: [(row["step"], row["epoch"]) for row in small.rows(tmp_path, run=run, metric="test_accuracy")]
        for run in ("fresh/seed0", "pretrain+tune/seed0")
    }
    assert places["fresh/seed0"] == [(0, 0.0), (6, 1.0), (12, 2.0), (18, 3.0)]
    assert places["pretrain+tune/seed0"] == [(0, 0.0), (3, 1.0), (6, 2.0), (9, 3.0), (12, 4.0), (14, 14 / 3)]
    assert result["images"] == 16 * (6 + 18 + 14)

    alone = small.config(seeds=(0,))
    alone.stages.tune.branches = ConfigDict({"fresh": {"after": "init"}})
    assert small.hashes(result)["fresh/seed0"] == small.hashes(small.run(alone, tmp_path / "alone"))["fresh/seed0"]


# Pairs.


def test_branches_of_a_seed_see_the_same_batches(tmp_path):
    """If the warm network is replaced completely by the fresh one, only other batches could make a difference."""
    config = small.config()
    config.stages.tune.augment = "crop_flip"
    config.stages.tune.reset.update(modules=("all",))
    result = small.run(config, tmp_path)
    hashes = small.hashes(result)
    for seed in (0, 1):
        assert hashes[f"fresh/seed{seed}"] == hashes[f"pretrain+tune/seed{seed}"]
        rows = [small.rows(tmp_path, run=f"{branch}/seed{seed}") for branch in small.WARM]
        assert small.numbers(rows[0]) == small.numbers(rows[1])
    assert hashes["fresh/seed0"] != hashes["fresh/seed1"]
    assert (result["gap"]["mean"], result["gap"]["sd"], result["gap"]["n"]) == (0.0, 0.0, 2)


def test_pools_of_a_seed_nest():
    study = study_config.parse(small.config())
    timetables = prepare.draw_up(study.packs[0], study, small.TOY)
    half, whole = ([set(pool.indices) for pool in timetables[name].pools] for name in ("pretrain", "tune"))
    assert [len(pool) for pool in half + whole] == [48] * 2 + [96] * 4
    assert all(part < everything for part, everything in zip(half, whole, strict=False))
    assert half[0] != half[1]


# Where a stage begins.


FROZEN = dict(learning_rate=1e-30)  # steps that change no weight
first_weights = jax.jit(state.init_network, static_argnums=(0, 2))


def test_a_stage_after_an_epoch_starts_from_the_parameters_of_then(tmp_path):
    config = small.config()
    config.stages.pretrain.epochs = 4.0
    config.stages.tune.branches["pretrain+tune"].after = "pretrain@2"
    config.stages.tune.optim.update(FROZEN)
    result = small.run(config, tmp_path, model=small.Net())
    short = small.config()
    short.stages.tune.optim.update(FROZEN)
    small.run(short, tmp_path / "short", model=small.Net())
    for seed in (0, 1):
        which = dict(branch="pretrain", seed=seed, stage="pretrain", model=small.Net())
        _, early, stats = plasticity_jax.load(tmp_path, epoch=2, **which)
        _, late, _ = plasticity_jax.load(tmp_path, **which)
        _, two_epochs, two_epochs_stats = plasticity_jax.load(tmp_path / "short", **which)
        assert parameters.sha256(early) == parameters.sha256(two_epochs) != parameters.sha256(late)
        assert parameters.sha256(stats) == parameters.sha256(two_epochs_stats)
        assert small.hashes(result)[f"pretrain+tune/seed{seed}"] == parameters.sha256(early)
        before = small.rows(tmp_path, "pretrain", run=f"pretrain/seed{seed}", epoch=2.0)
        after = small.rows(tmp_path, run=f"pretrain+tune/seed{seed}", epoch=0.0)
        for metric in ("test_loss", "test_accuracy"):
            assert [r["value"] for r in before if r["metric"] == metric] == [
                r["value"] for r in after if r["metric"] == metric
            ]
    assert result["images"] == 16 * (2 * 4 * 3 + 4 * 18)


def test_a_snapshot_is_kept_even_if_the_stage_ended_before(tmp_path):
    """A stage that ends early is unchanged from then on."""
    config = small.config(seeds=(0,))
    config.stages.pretrain.update(epochs=9.0, until_accuracy=0.01)
    config.stages.tune.branches["pretrain+tune"].after = "pretrain@5"
    config.stages.tune.optim.update(FROZEN)
    result = small.run(config, tmp_path)
    assert max(small.curve(tmp_path, "pretrain/seed0", stage="pretrain")) == 3
    _, end, _ = plasticity_jax.load(tmp_path, "pretrain", 0, "pretrain")
    _, snapshot, _ = plasticity_jax.load(tmp_path, "pretrain", 0, "pretrain", epoch=5)
    assert small.hashes(result)["pretrain+tune/seed0"] == parameters.sha256(end) == parameters.sha256(snapshot)


def test_a_snapshot_beyond_stages_that_were_cut_is_their_end(tmp_path):
    config = small.config(seeds=(0,))
    config.stages.pretrain.steps = 4
    config.stages.tune.branches["pretrain+tune"].after = "pretrain@2"
    config.stages.tune.optim.update(FROZEN)
    result = small.run(config, tmp_path)
    _, end, _ = plasticity_jax.load(tmp_path, "pretrain", 0, "pretrain")
    assert small.hashes(result)["pretrain+tune/seed0"] == parameters.sha256(end)


def test_fresh_runs_start_from_the_first_weights_of_the_seed(tmp_path):
    config = small.config()
    config.stages.tune.optim.update(FROZEN)
    result = small.run(config, tmp_path)
    for seed in (0, 1):
        model, params, _ = plasticity_jax.load(tmp_path, "fresh", seed)
        first, _ = first_weights(model, state.init_key(seed), (8, 8, 1))
        for leaf, other in zip(jax.tree.leaves(params), jax.tree.leaves(first), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-6)
    assert small.hashes(result)["fresh/seed0"] != small.hashes(result)["fresh/seed1"]
    rows = [
        small.rows(tmp_path, "pretrain", run="pretrain/seed0", epoch=0.0),
        small.rows(tmp_path, run="fresh/seed0", epoch=0.0),
    ]
    assert small.numbers(rows[0]) == small.numbers(rows[1])


def test_every_stage_has_fresh_weights_of_its_own(tmp_path):
    """For stages that replace all weights and do not train."""
    config = small.config(seeds=(0,), control="tune")
    for name in ("tune", "other"):
        config.stages[name] = small.stage(after="pretrain", steps=1, reset={"modules": ("all",)})
        config.stages[name].optim.update(FROZEN)
    hashes = small.hashes(small.run(config, tmp_path))
    first, _ = first_weights(plasticity_jax.load(tmp_path, "tune", 0)[0], state.init_key(0), (8, 8, 1))
    assert len({*hashes.values(), parameters.sha256(first)}) == 3


def test_moments_go_on_only_if_they_are_kept(tmp_path):
    """The first step differs by the momentum from the stage before."""
    moved = {}
    for kept in ("keep", "all"):
        config = small.config(seeds=(0,), control="warm")
        config.stages.tune.branches = small.branches(warm={"after": "pretrain"})
        config.stages.tune.reset.optimiser = kept
        config.stages.tune.steps = 1
        moved[kept] = small.hashes(small.run(config, tmp_path / kept))["warm/seed0"]
    assert moved["keep"] != moved["all"]


@pytest.mark.slow
def test_a_stage_with_another_optimiser_may_follow_one_whose_moments_are_kept_elsewhere(tmp_path):
    config = small.config(seeds=(0,), control="tune")
    config.stages.tune = small.stage(after="pretrain", epochs=1.0, reset={"optimiser": "keep"})
    config.stages.other = small.stage(after="pretrain", epochs=1.0)
    config.stages.other.optim.update(name="adam", momentum=0.0, learning_rate=0.01)
    result = small.run(config, tmp_path)
    assert [run["status"] for run in result["runs"]] == ["finished"] * 2
    assert [(pair["control"], pair["treatment"]) for pair in result["contrasts"]] == [("tune", "other")]


# Stages in a row.


def test_parts_of_a_split_are_stages_in_a_row(tmp_path):
    config = small.config(seeds=(0,), control="direct")
    config.stages = ConfigDict(sort_keys=False)
    for part in (1, 2, 3):
        data = {"recipe": "split", "splits": 3, "part": part, "uniform": 0.3}
        config.stages[f"part{part}"] = small.stage(
            after=f"part{part - 1}" if part > 1 else "init", data=data, epochs=2.0, eval_every=0
        )
    config.stages.part3.branches = small.branches(direct={"after": "init"}, gradual={"after": "part2"})
    result = small.run(config, tmp_path)
    assert [run["run"] for run in result["runs"]] == ["direct/seed0", "gradual/seed0"]

    study = study_config.parse(config)
    timetables = prepare.draw_up(study.packs[0], study, small.TOY)
    assert list(timetables) == ["part1", "part2", "part3"]
    sizes = [len(timetables[name].pools[0].indices) for name in timetables]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 96
    steps = [-(-size // 16) * 2 for size in sizes]
    assert result["images"] == 16 * (steps[0] + steps[1] + 2 * steps[2])
    for name, count in zip(timetables, steps, strict=True):
        assert {row["step"] for row in small.rows(tmp_path, name)} == {0, count}
    for after, before in (("part2", "part1"), ("part3", "part2")):
        start = [r["value"] for r in small.rows(tmp_path, after, epoch=0.0) if r["branch"] != "direct"]
        ends = [r for r in small.rows(tmp_path, before) if r["step"] and r["metric"].startswith("test")]
        assert start == [row["value"] for row in ends]


# Where a stage ends.


def test_a_run_that_is_accurate_enough_ends_early(tmp_path):
    result = small.run(small.single(until_accuracy=0.95, epochs=12.0), tmp_path)
    ends = []
    for run in result["runs"]:
        accuracy = small.curve(tmp_path, run["run"], "train_accuracy", "train")
        *before, end = accuracy
        assert list(accuracy) == list(range(6, end + 1, 6)) and end < 72
        assert accuracy[end] >= 95.0 > max(accuracy[step] for step in before)
        test = small.curve(tmp_path, run["run"], stage="train")
        assert list(test) == [0, *accuracy]
        assert run["test_accuracy"] == pytest.approx(np.mean([v for step, v in test.items() if step > end / 2]))
        ends.append(end)
    assert ends[0] != ends[1]  # otherwise the test would not show that one continues without the other
    assert result["images"] == 16 * sum(ends)

    short = small.single(epochs=ends[0] / 6)
    short.seeds = (0,)
    alone = small.run(short, tmp_path / "short")
    assert small.hashes(alone)["train/seed0"] == small.hashes(result)["train/seed0"]


# What is measured.


def test_every_accuracy_is_that_of_the_saved_network(tmp_path):
    config = small.config(train_eval_images=20, validation_images=10, train_images=60, test_images=33)
    config.update(seeds=(1,), control="pretrain+tune")
    del config.stages.tune.branches["fresh"]
    config.stages.tune.data.label_noise = 0.2
    small.run(config, tmp_path, model=small.Net())
    data = small.TOY

    @jax.jit
    def outputs(params, stats, images):
        inputs = batches.normalise(images, np.float32(data.mean), np.float32(data.std))
        return jax.nn.log_softmax(small.Net().apply({"params": params, "batch_stats": stats}, inputs, train=False))

    def measure(network, indices, labels, images):
        logits = np.asarray(outputs(*network[1:], images))[indices]
        losses = -logits[np.arange(len(labels)), labels]
        return losses.mean(), 100 * np.mean(np.argmax(logits, -1) == labels)

    for stage, branch in (("pretrain", "pretrain"), ("tune", "pretrain+tune")):
        network = plasticity_jax.load(tmp_path, branch, 1, stage, model=small.Net())
        (run,) = {row["run"] for row in small.rows(tmp_path, stage, seed=1, branch=branch)}
        last = max(small.curve(tmp_path, run, stage=stage))
        values = {row["metric"]: row["value"] for row in small.rows(tmp_path, stage, run=run, step=last)}
        study = study_config.parse(config)
        recipe = next(s for _, plan in study.packs[0].plans for s in plan if s.branch == branch).data
        held = subsets.held_out(1, 96, 10)
        pool = subsets.pool(recipe, 1, data.train_labels, 3, 60, 10)
        assert len(pool.indices) == (30 if stage == "pretrain" else 60)
        expected = {
            "test": measure(network, np.arange(33), data.test_labels[:33], data.test_images),
            "validation": measure(network, held, data.train_labels[held], data.train_images),
            "train_eval": measure(network, pool.indices[:20], pool.labels[:20], data.train_images),
        }
        for name, (loss, accuracy) in expected.items():
            assert values[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
            assert values[f"{name}_accuracy"] == pytest.approx(accuracy)
        assert not set(pool.indices) & set(held)
        measured = {f"{n}_{m}" for n in (*expected, "train") for m in ("loss", "accuracy")}
        assert set(values) == measured | {"gradient_norm", "learning_rate"}


def test_rows_come_at_the_epochs_that_were_asked_for(tmp_path):
    config = small.single(epochs=7.5, eval_every=3, eval_tail=1)
    config.update(seeds=(0,), window=0.4)
    small.run(config, tmp_path)
    rows = small.rows(tmp_path, "train")
    assert list(dict.fromkeys(row["epoch"] for row in rows)) == [0.0, 3.0, 5.0, 6.0, 7.0, 7.5]
    assert {row["epoch"] for row in rows if row["metric"] == "train_accuracy"} == {3.0, 5.0, 6.0, 7.0, 7.5}
    assert all(row["step"] == 6 * row["epoch"] for row in rows)
    row = {"run": "train/seed0", "seed": 0, "branch": "train", "hparams": {}, "stage": "train"}
    assert all({key: each[key] for key in row} == row for each in rows)


def test_a_branch_from_an_epoch_that_never_comes_is_refused(tmp_path):
    config = small.config()
    config.stages.tune.branches["pretrain+tune"].after = "pretrain@3"
    with pytest.raises(LabError, match="pretrain has only 2 epochs"):
        small.run(config, tmp_path)
