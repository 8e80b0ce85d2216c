"""Every config plans what the papers define, and every run begins with it.

Plans are at the scale of the paper; where networks must be inspected, the same plan trains a tiny network on a few
images.  Berariu et al. 2021 numbers the modules 1 to 6; `stem`, `module2`, .., `head` here.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import models, study_config
from plasticity_jax.config import spec
from plasticity_jax.config.plan import unfold
from plasticity_jax.configs import (
    architecture,
    base,
    blending,
    controls,
    multistage,
    pretrain_length,
    resets,
    splits,
    tuning_rate,
    warm_start,
)
from plasticity_jax.data import batches, datasets
from plasticity_jax.parallel import programs, run_axis
from plasticity_jax.runner import prepare, schedule
from plasticity_jax.storage import networks, workdir
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.training import state
from tests.support import small
from tests.support.tiny import same

MODULES = ("stem", "module2", "module3", "module4", "module5", "head")
IMAGES = 50_000


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.relu(nn.BatchNorm(not train, name="norm")(nn.Dense(4, name="dense")(x)))


class Six(nn.Module):
    """The six modules of the paper by name, each minimal."""

    classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = images.reshape(len(images), -1)
        for name in MODULES[:-1]:
            x = Layer(name=name)(x, train)
        return nn.Dense(self.classes, name="head")(x)


NET = Six()
DRAWING = programs.Programs(NET, small.TOY.train_images.shape[1:], "loop", 16, {}, {})


def network(*key: Any) -> tuple[Any, Any]:
    """(parameters, statistics) of `NET` for the key of a seed and names, compiled as in a study."""
    return DRAWING.init(batches.key(*key))


def scaled_down(config: ConfigDict) -> ConfigDict:
    """The same plan for two seeds and two small steps a stage."""
    config.update(seeds=(0, 1), train_images=0, test_images=0, diagnostics=(), eval_batch=16, strategy="loop", grid=())
    for stage in config.stages.values():
        stage.update(batch_size=16, steps=2, eval_every=0)
    return config


def run_and_look(config: ConfigDict, stage: str, directory: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Run a config; the params, stats and opt with which every branch and seed began `stage`."""
    looked_at = config.stages[stage]
    branches = {f"after-{name}": {"after": f"{stage}/{name}@0"} for name in looked_at.branches}
    last = base.stage(steps=1, batch_size=16, optim=looked_at.optim, reset={"optimiser": "keep"}, branches=branches)
    config.stages["look"] = last  # it makes the stage keep epoch 0, with the moments
    if config.control in looked_at.branches:
        config.control = f"after-{config.control}"
    plasticity_jax.run(config, directory, dataset=small.TOY, model=NET)
    study = networks.restore_study(workdir.read_json(directory / "config.json"))
    groups = unfold(study.packs[0], study.seeds)
    (group,) = [group for group in groups if group.name == stage]
    like = networks.states_like(group, state.network_like(NET, small.TOY.train_images.shape[1:]))
    checkpoints = Checkpoints(directory / "main" / stage / "snapshots", None)
    tree, _ = checkpoints.restore(0, networks.kept(group, groups, like))
    checkpoints.close()
    return {(run.branch, run.seed): run_axis.take(tree, row) for row, run in enumerate(group.runs)}


def ended(directory: Path, stage: str, branch: str, seed: int) -> tuple[Any, Any]:
    """(parameters, statistics) at the end of a stage."""
    return plasticity_jax.load(directory, branch, seed, stage, model=NET)[1:]


def is_new(opt: Any) -> bool:
    return not any(np.any(leaf) for leaf in jax.tree.leaves(opt))


@pytest.fixture(scope="module")
def cifar() -> datasets.Dataset:
    """Labels and sizes of CIFAR-10; the pixels do not matter."""
    labels = np.random.default_rng(0).integers(0, 10, IMAGES).astype(np.int32)
    return dataclasses.replace(small.dataset(train=IMAGES, test=10), train_labels=labels, classes=10)


def plan(study: spec.Study, point: int = 0, pack: int = 0) -> dict[tuple[str, str], spec.Stage]:
    return {(each.name, each.branch): each for each in study.packs[pack].plans[point][1]}


def timetables(config: ConfigDict, dataset: datasets.Dataset, seeds: tuple[int, ...] = (0,)) -> Iterator[tuple]:
    """(stage record, pool, steps) of all runs of the first pack."""
    config.seeds = seeds
    study = study_config.parse(config)
    for times in prepare.draw_up(study.packs[0], study, dataset).values():
        yield from zip(times.group.runs, times.pools, times.steps, strict=True)


# ---- Berariu et al., Figure 2 ----


@pytest.mark.slow
def test_every_length_is_a_pretraining_of_so_many_epochs(tmp_path):
    """Bit for bit the run that was pretrained for that long and no longer."""

    def config(*lengths: int) -> ConfigDict:
        settings = pretrain_length.get_config("digits")
        settings.update(seeds=(0, 1), diagnostics=(), eval_batch=16, strategy="loop")
        settings.model.name = "mlp"
        settings.stages.tune.epochs = 2
        for stage in settings.stages.values():
            stage.batch_size = 16
        if lengths:
            branches = {f"pretrain-{epochs}": {"after": "pretrain"} for epochs in lengths}
            settings.stages.pretrain.epochs = max(lengths)
            settings.stages.tune.branches = ConfigDict({"fresh": {"after": "init"}, **branches})
        return settings

    together = small.hashes(small.run(config(), tmp_path / "all"))
    assert len(together) == len(set(together.values())) == 2 * (1 + 4)
    for epochs in (1,):
        alone = small.hashes(small.run(config(epochs), tmp_path / str(epochs)))
        assert alone == {run: together[run] for run in alone} and len(alone) == 4


@pytest.mark.parametrize("optimiser", base.OPTIMISERS)
def test_lengths_share_one_pretraining_in_every_optimiser(optimiser):
    """Figures 8 to 10 are read as this study with the other optimisers, in both stages."""
    study = study_config.parse(pretrain_length.get_config(f"optimiser={optimiser}"))
    pretrain, tune = unfold(study.packs[0], study.seeds)
    assert len(pretrain.runs) == len(study.seeds)
    assert {run.stage.optim for run in (*pretrain.runs, *tune.runs)} == {pretrain.runs[0].stage.optim}
    lengths = {run.branch: run.parent and run.parent[2] for run in tune.runs}
    assert lengths.pop("fresh") is None
    assert lengths == {f"pretrain-{epochs}": epochs for epochs in lengths.values()}
    assert {5, 10, 350} <= set(lengths.values()) and max(lengths.values()) == pretrain.runs[0].stage.epochs


# ---- Figure 3 and appendix A.2 ----


@functools.partial(jax.jit, static_argnums=2)
def drawn(source: batches.Source, step: int, count: int) -> jax.Array:
    """The draws of one of the steps of 500 epochs, as slots of the pool."""
    key = batches.key(0, "stage", "tune")
    return batches.batch_slots(key, jnp.arange(IMAGES), step, 500 * 391, 0, count, source)


@pytest.mark.slow
def test_the_share_from_everything_grows_as_defined(cifar):
    """p(n) = 1 - gamma^(50 n/N); the other draws are from the half of the other studies."""
    half = next(pool for run, pool, _ in timetables(multistage.get_config(), cifar) if run.branch == "pretrain")
    gammas = []
    for run, pool, steps in timetables(blending.get_config(), cifar):
        source = schedule.source(pool, run.stage.data, IMAGES)
        assert (steps, len(set(pool.indices.tolist())), run.parent) == (500 * 391, IMAGES, None)
        if run.branch == "blend":
            gamma = dict(run.hparams)["gamma"]
            gammas.append(gamma)
            np.testing.assert_array_equal(pool.indices[: pool.base], half.indices)
            for epoch in (0, 3, 50, 499):
                outside = np.mean(np.asarray(drawn(source, epoch * 391, IMAGES)) >= IMAGES // 2)
                p = 1 - gamma ** (epoch / 10)
                assert abs(outside - p / 2) <= 5 * np.sqrt(p / 2 * (1 - p / 2) / IMAGES)
    assert gammas == pytest.approx(np.arange(1, 10) / 10)


def test_only_the_fresh_control_sees_every_image_once_an_epoch(cifar):
    for run, pool, _ in timetables(blending.get_config(), cifar):
        last = drawn(schedule.source(pool, run.stage.data, IMAGES), 500 * 391 - 1, IMAGES)
        distinct = len(np.unique(last)) / IMAGES
        # With replacement, as many draws as images leave 1/e of them out.
        assert distinct == 1 if run.branch == "fresh" else abs(distinct - (1 - np.exp(-1))) < 0.01


# ---- Figure 4 and appendix A.3 ----


def test_chains_of_parts():
    """part1 -> part2 -> .. -> tune: D_1 to D_n, then everything; weights go on, moments do not."""
    study = study_config.parse(splits.get_config())
    stages = plan(study)
    chains: dict[str, list[spec.Stage]] = {}
    for (_, branch), stage in stages.items():
        chains.setdefault(branch, []).append(stage)
    assert [each.data.recipe for each in chains.pop("fresh")] == ["random"]
    assert {(chain[-1].data.splits, chain[-1].data.uniform) for chain in chains.values()} == (
        {(n, 1.0) for n in (2, 3, 5, 10)} | set(itertools.product((2, 5, 10), (0.0, 0.25, 0.5, 0.75)))
    )
    for branch, chain in chains.items():
        count, uniform = chain[-1].data.splits, chain[-1].data.uniform
        assert branch == f"splits-{count}" + ("" if uniform == 1 else f"-uniform-{100 * uniform:.0f}")
        assert [each.name for each in chain] == [*(f"part{i}" for i in range(1, count)), "tune"]
        assert [each.after for each in chain] == ["init", *(f"{each.name}/{branch}" for each in chain[:-1])]
        assert [each.epochs for each in chain] == [350.0] * (count - 1) + [500.0]
        for part, stage in enumerate(chain, start=1):
            assert (stage.data.recipe, stage.data.splits, stage.data.part) == ("split", count, part)
            assert (stage.data.uniform, stage.reset.modules, stage.reset.optimiser) == (uniform, (), "all")


def test_parts_are_those_of_the_definition():
    """D_i = D_(i-1), D_u,i and the images of D_c with classes C_i; |D_u| / |D| = r; D_(n+1) = D."""
    labels = np.random.default_rng(1).integers(0, 10, 1000).astype(np.int32)
    dataset = dataclasses.replace(small.dataset(train=1000), train_labels=labels, classes=10)
    arrived: dict[tuple[int, int, float], list[set[int]]] = {}
    for run, pool, _ in timetables(splits.get_config(), dataset, seeds=(0, 1)):
        if run.branch != "fresh":
            so_far = arrived.setdefault((run.seed, run.stage.data.splits, run.stage.data.uniform), [])
            images = set(pool.indices.tolist())
            assert len(images) == len(pool.indices) and set().union(*so_far) <= images
            so_far.append(images - set().union(*so_far))  # the new images of this part
    assert len(arrived) == 2 * 16
    groups = {}  # (seed, count) -> the classes of every part
    for (seed, count, uniform), new in arrived.items():
        assert len(new) == count and set().union(*new) == set(range(1000))
        if uniform == 0:
            groups[seed, count] = [{int(labels[i]) for i in part} for part in new]
            assert [len(classes) for classes in groups[seed, count]] == [10 // count] * count  # nothing but C_i
        if uniform == 1:
            assert {len(part) for part in new} <= {1000 // count, -(-1000 // count)}
    assert groups[0, 5] != groups[1, 5]
    for (seed, count, uniform), new in arrived.items():
        if 0 < uniform < 1:
            strays = [
                sum(int(labels[i]) not in classes for i in part)
                for part, classes in zip(new, groups[seed, count], strict=True)
            ]
            expected = 1000 * uniform / count * (1 - 1 / count)  # those of D_u,i whose class is in no C_i
            assert max(strays) <= 1000 * uniform / count
            assert np.abs(np.array(strays) - expected).max() < 5 * np.sqrt(expected)


# ---- Figure 5 and appendix A.4 ----


@pytest.mark.slow
def test_networks_are_the_family_of_the_appendix():
    """8 d + 1 convolutions of 3x3 (and the stem's), 3 projections, w to 8 w channels."""
    packs = study_config.parse(architecture.get_config()).packs
    assert [(pack.model.depth, pack.model.width) for pack in packs] == list(
        itertools.product((1, 2, 3, 4), (16, 32, 64, 128))
    )
    for pack in (packs[0], packs[-1]):  # the smallest and the largest
        depth, width = pack.model.depth, pack.model.width
        params, _ = state.network_like(models.build(pack.model, 10), (32, 32, 3))
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
        kernels = [name for name in leaves if "kernel" in name and "head" not in name]
        assert sum("proj" in name for name in kernels) == 3
        assert len(kernels) == 8 * depth + 1 + 3
        blocks, channels = 0, width
        for out in (width, 2 * width, 4 * width, 8 * width):
            for block in range(depth):
                blocks += 9 * channels * out + 9 * out * out + 4 * out  # two convolutions, two normalisations
                blocks += channels * out + 2 * out if block == 0 and out > width else 0  # the projection
                channels = out
        ends = 49 * 3 * width + 2 * width + (8 * width + 1) * 10
        assert sum(leaf.size for leaf in leaves.values()) == ends + blocks


# ---- Figures 6 and 11 and appendix A.5 ----


@pytest.fixture(scope="module")
def reset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    directory = tmp_path_factory.mktemp("resets")
    return directory, run_and_look(scaled_down(resets.get_config()), "tune", directory)


def numbers(branch: str) -> set[int]:
    """The modules that the name of a branch says are reset."""
    _, *ends = branch.split("-")
    return set(range(int(ends[0]), int(ends[-1]) + 1))


@pytest.mark.slow
def test_subsets_are_all_suffixes_prefixes_and_single_modules(reset):
    _, starts = reset
    subsets = [numbers(branch) for branch, seed in starts if branch.startswith("reset") and seed == 0]
    ends = [set(range(1, k)) for k in range(2, 7)] + [set(range(k, 7)) for k in range(2, 7)]
    assert sorted(subsets, key=sorted) == sorted([*ends, {2}, {3}, {4}, {5}], key=sorted)


@pytest.mark.slow
def test_modules_that_are_reset_are_drawn_anew_and_no_other_bit_changes(reset):
    directory, starts = reset
    pretrained = [ended(directory, "pretrain", "pretrain", seed) for seed in (0, 1)]
    drawn = [(network(seed, "init")[0], network(seed, "fresh", "tune")[0]) for seed in (0, 1)]
    for (branch, seed), start in starts.items():
        if not branch.startswith("reset"):
            continue
        (params, stats), (first, anew) = pretrained[seed], drawn[seed]
        for number, module in enumerate(MODULES, start=1):
            if number in numbers(branch):
                assert same(start["params"][module], anew[module])  # another draw of the initial distribution
                for other in (params, first, starts[branch, 1 - seed]["params"]):
                    assert not same(start["params"][module], other[module])
                for leaf, value in {"mean": 0, "var": 1}.items() if module != "head" else ():
                    assert (start["stats"][module]["norm"][leaf] == value).all()
            else:
                assert same(start["params"][module], params[module])
                assert module == "head" or same(start["stats"][module], stats[module])
        assert is_new(start["opt"])


@pytest.mark.slow
def test_the_controls_of_resets_are_the_pretrained_and_the_fresh_network(reset):
    directory, starts = reset
    for seed in (0, 1):
        warm, fresh = starts["pretrain+tune", seed], starts["fresh", seed]
        assert same((warm["params"], warm["stats"]), ended(directory, "pretrain", "pretrain", seed))
        assert is_new(warm["opt"])
        assert same((fresh["params"], fresh["stats"]), network(seed, "init")) and is_new(fresh["opt"])


# ---- Figure 7 ----


@pytest.mark.parametrize("optimiser", base.OPTIMISERS)
def test_only_the_tuning_has_larger_rates(optimiser):
    study = study_config.parse(tuning_rate.get_config(f"optimiser={optimiser}"))
    (pack,) = study.packs
    pretrain, tune = unfold(pack, study.seeds)
    rate = base.OPTIMISERS[optimiser]["learning_rate"]
    assert [(run.seed, run.stage.optim.learning_rate) for run in pretrain.runs] == [(s, rate) for s in study.seeds]
    rates = {(run.branch, dict(run.hparams)["rate"]): run.stage.optim.learning_rate / rate for run in tune.runs}
    assert rates == {
        (branch, f"{factor}x"): pytest.approx(factor)
        for branch in ("fresh", "pretrain+tune")
        for factor in (1, 3, 10, 30)
    }
    assert len(tune.runs) == len(rates) * len(study.seeds)


# ---- the controls ----


def test_the_matched_control_has_the_updates_of_both_stages(cifar):
    """675 epochs of everything, up to rounding half an epoch to whole batches."""
    steps = {run.branch: steps for run, _, steps in timetables(controls.get_config(), cifar)}
    assert steps["fresh-matched"] == 675 * 391 == 263_925
    assert steps["pretrain"] + steps["pretrain+tune"] == 350 * 196 + 500 * 391 == 264_100
    assert steps["fresh"] == steps["fresh-statistics"] == 500 * 391


def test_both_stems_have_all_controls():
    packs = study_config.parse(controls.get_config()).packs
    assert [pack.model.stem for pack in packs] == ["imagenet", "cifar"]
    assert packs[0].plans[0][1] == packs[1].plans[0][1]


def test_the_control_of_statistics_resets_them_and_nothing_else():
    study = study_config.parse(controls.get_config())
    warm, anew = (plan(study)["tune", branch] for branch in ("pretrain+tune", "fresh-statistics"))
    assert anew.reset == dataclasses.replace(warm.reset, statistics="all") != warm.reset
    assert dataclasses.replace(anew, branch=warm.branch, reset=warm.reset) == warm


@pytest.mark.long
def test_statistics_start_anew_and_nothing_else_does(tmp_path):
    starts = run_and_look(scaled_down(controls.get_config()), "tune", tmp_path)
    for seed in (0, 1):
        warm, anew = starts["pretrain+tune", seed], starts["fresh-statistics", seed]
        assert same(anew["params"], warm["params"])
        assert same(anew["stats"], network(seed, "init")[1]) and not same(anew["stats"], warm["stats"])
        assert same(starts["fresh-matched", seed], starts["fresh", seed])
        ends = [ended(tmp_path, "tune", name, seed) for name in ("pretrain+tune", "fresh-statistics")]
        assert same(ends[0][0], ends[1][0]) and not same(ends[0][1], ends[1][1])  # training does not use them


# ---- Ash & Adams 2020 ----


def shrunk(params: Any, anew: Any) -> Any:
    return jax.tree.map(lambda old, new: np.float32(0.6) * old + np.float32(0.01) * new, params, anew)


def assert_close(one: Any, other: Any) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), one, other)


@pytest.mark.slow
def test_shrink_and_perturb_of_the_table(tmp_path):
    starts = run_and_look(scaled_down(warm_start.get_config()), "tune", tmp_path)
    for seed in (0, 1):
        params, _ = ended(tmp_path, "pretrain", "pretrain", seed)
        anew, statistics = network(seed, "fresh", "tune")
        start = starts["shrink-perturb", seed]
        assert_close(start["params"], shrunk(params, anew))
        assert same(start["stats"], statistics) and is_new(start["opt"])
        assert same(starts["pretrain+tune", seed]["params"], params)


@pytest.mark.long  # by day one round of them is looked at, and what is planned of all
def test_what_chunks_go_on_from(tmp_path):
    starts = run_and_look(scaled_down(warm_start.get_config("smoke,study=online")), "chunk2", tmp_path)
    for seed in (0, 1):
        warm, before = starts["warm", seed], ended(tmp_path, "chunk1", "shrink-perturb", seed)
        assert same((warm["params"], warm["stats"]), ended(tmp_path, "chunk1", "warm", seed))
        expected = shrunk(before[0], network(seed, "fresh", "chunk2")[0])
        assert_close(starts["shrink-perturb", seed]["params"], expected)
        assert same(starts["fresh-2", seed]["params"], network(seed, "init")[0])
        assert all(is_new(starts[name, seed]["opt"]) for name in ("warm", "shrink-perturb", "fresh-2"))


def test_the_table_has_three_models_and_two_optimisers():
    study = study_config.parse(warm_start.get_config())
    rows = {}
    for pack in study.packs:
        (hparams, records), *none = pack.plans
        (rule,) = {(each.optim.name, each.optim.learning_rate, each.optim.momentum) for each in records}
        rows[tuple(dict(hparams).values())] = rule, pack.model.depth, pack.model.width, pack.model.stem
        assert not none and {each.until_accuracy for each in records} == {0.99}
    rules = {"adam": ("adam", 1e-3, 0.0), "sgd": ("sgd", 1e-3, 0.0)}
    sizes = {"resnet": (2, 16), "mlp": (2, 100), "logistic": (1, 1)}
    assert rows == {
        (model, name): (rule, *size, "cifar") for model, size in sizes.items() for name, rule in rules.items()
    }
    assert study.window < 1 / 50  # the accuracy at the end


@pytest.mark.slow
def test_a_thousand_images_arrive_at_a_time(cifar):
    sizes: dict[str, list[int]] = {}
    chunks = {0: np.zeros(IMAGES, bool)}  # which images each chunk has
    for run, pool, _ in timetables(warm_start.get_config("study=online"), cifar):
        chunk = run.stage.data.part
        sizes.setdefault(run.branch, []).append(len(pool.indices))
        present = np.bincount(pool.indices, minlength=IMAGES) > 0
        assert np.array_equal(present, chunks.setdefault(chunk, present)) and not (chunks[chunk - 1] & ~present).any()
    assert sizes.pop("warm") == sizes.pop("shrink-perturb") == [1000 * chunk for chunk in range(1, 51)]
    assert sizes == {f"fresh-{chunk}": [1000 * chunk] for chunk in range(1, 51)}
