"""Every file in configs/ has a description and makes a study, and the protocol of the paper runs."""

import importlib
import math
import re
from pathlib import Path

import pytest

import plasticity_jax
from plasticity_jax import study_config
from plasticity_jax.config import parse
from plasticity_jax.config.plan import unfold
from plasticity_jax.configs import base
from plasticity_jax.data import stand_ins
from plasticity_jax.errors import ConfigError
from plasticity_jax.launch import planner
from plasticity_jax.runner import prepare
from plasticity_jax.storage import workdir
from tests.runner.test_protocols import Six
from tests.support import small

FILES = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
    if path.stem not in ("__init__", "base", "presets", "treatments", "paper")
]
PRESETS = ("", "small", "digits", "smoke")


def module(path: Path):
    return importlib.import_module(f"plasticity_jax.configs.{path.stem}")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request):
    return request.param


def test_there_are_configs():
    assert "multistage" in [path.stem for path in FILES]


@pytest.mark.parametrize("preset", [pytest.param(p, marks=pytest.mark.long if p == "small" else ()) for p in PRESETS])
def test_presets_are_studies(file, preset):
    study = study_config.parse(module(file).get_config(preset))
    assert len(study.seeds) >= 2  # otherwise there is no interval
    for pack in study.packs:
        assert pack.model.dtype == "float32"  # whatever the device
        for _, plan in pack.plans:
            assert all(stage.steps == 30 for stage in plan) == (preset == "smoke")
    assert (study.dataset == "digits") == (preset == "digits")
    again = study_config.parse(module(file).get_config(preset))
    assert parse.describe(again) == parse.describe(study)


MEDIUM = ("multistage", "resets", "stepdecay", "tuning_rate")


@pytest.mark.parametrize("name", MEDIUM)
def test_medium_is_all_images_in_a_network_of_width_16(name):
    study = study_config.parse(importlib.import_module(f"plasticity_jax.configs.{name}").get_config("medium"))
    assert (study.dataset, study.train_images, study.test_images, len(study.seeds)) == ("cifar10", 0, 0, 5)
    for pack in study.packs:
        assert (pack.model.name, pack.model.width, pack.model.stem) == ("resnet", 16, "imagenet")
        assert pack.model.dtype == "float32"
        for _, plan in pack.plans:
            lengths = {(stage.name, stage.epochs, stage.batch_size, stage.data.fraction) for stage in plan}
            assert lengths == (
                {("train", 150, 128, 1)} if name == "stepdecay" else {("pretrain", 50, 128, 0.5), ("tune", 100, 128, 1)}
            )


def test_images_of_medium_are_those_the_docstring_says():
    study = study_config.parse(importlib.import_module("plasticity_jax.configs.multistage").get_config("medium"))
    runs = [run.stage for group in unfold(study.packs[0], study.seeds) for run in group.runs]
    count = sum(
        math.ceil(50_000 * stage.data.fraction / stage.batch_size) * stage.batch_size * stage.epochs for stage in runs
    )
    assert (
        count == 56_320_000
        and "56.3 million images, by the dry run" in module(FILES[0].with_stem("multistage")).__doc__
    )


def test_other_studies_have_no_medium(file):
    if file.stem not in MEDIUM:
        with pytest.raises(ConfigError, match="medium: there is no such"):
            module(file).get_config("medium")


def test_no_digit_is_mirrored(file):
    study = study_config.parse(module(file).get_config("digits"))
    found = {stage.augment for pack in study.packs for _, plan in pack.plans for stage in plan}
    assert found <= {"none", "crop"}


@pytest.mark.parametrize(
    ("target", "augment"), [("held_out", "crop_flip"), ("cifar100", "crop_flip"), ("svhn_cropped", "crop")]
)
def test_images_of_a_target_are_augmented_as_they_may_be(target, augment):
    stages = importlib.import_module("plasticity_jax.configs.transfer").get_config(f"target={target}").stages
    assert (stages.train.augment, stages.finetune.augment) == ("crop_flip", augment)


@pytest.mark.parametrize(("arg", "sizes"), [("scale=imagenet64", (0, 0)), ("scale=imagenet", (256, 224))])
@pytest.mark.parametrize("name", ["stepdecay", "autodecay"])
def test_the_paper_s_network_and_data(name, arg, sizes):
    """ResNet-50 for 90 epochs with decays at 30, 60 and 80, and batches of 256."""
    study = study_config.parse(importlib.import_module(f"plasticity_jax.configs.{name}").get_config(arg))
    assert (study.resize, study.image_size, study.test_split) == (*sizes, "validation")
    (_, plan), *_ = study.packs[0].plans
    stage = plan[0]
    assert (study.packs[0].model.name, stage.epochs, stage.batch_size) == ("resnet50", 90, 256)
    assert [share * stage.epochs for share in stage.optim.milestones] == pytest.approx([30, 60, 80])
    assert (stage.optim.learning_rate, stage.optim.weight_decay, stage.augment) == (0.1, 1e-4, "resized_crop_flip")


def test_the_paper_s_targets():
    get_config = importlib.import_module("plasticity_jax.configs.transfer").get_config
    study = study_config.parse(get_config("source=imagenet64,target=caltech_birds2011"))
    assert study.dataset == "imagenet_resized/64x64+caltech_birds2011"
    assert (study.resize, study.test_split, study.validation_images) == (64, "validation+test", 1000)
    stages = {(stage.name, stage.branch): stage for stage in study.packs[0].plans[0][1]}
    assert stages["probe", "probe-stage-2"].after == "train/stepdecay@60"
    assert stages["finetune", "finetune-stage-3"].augment == "resized_crop_flip"
    halves = study_config.parse(get_config("source=imagenet64"))
    assert {stage.data.classes for stage in halves.packs[0].plans[0][1]} == {(0, 500), (500, 1000), ()}


@pytest.mark.parametrize(
    ("name", "arg", "line"),
    [
        ("stepdecay", "small,scale=imagenet", "arguments small and imagenet exclude each other"),
        ("transfer", "digits,source=imagenet64", "arguments digits and imagenet64 exclude each other"),
        ("transfer", "target=caltech101", "source=cifar10 and target=caltech101 exclude each other"),
    ],
)
def test_scales_that_exclude_each_other(name, arg, line):
    with pytest.raises(ConfigError, match=line):
        importlib.import_module(f"plasticity_jax.configs.{name}").get_config(arg)


@pytest.mark.slow
def test_imagenet_can_be_planned_without_it(capsys):
    config = importlib.import_module("plasticity_jax.configs.stepdecay").get_config("scale=imagenet64")
    config.seeds = (0,)
    assert (
        plasticity_jax.run(config, "unused", dry_run=True, dataset=stand_ins.load(*study_config.parse(config).data))
        == {}
    )
    text = capsys.readouterr().out
    assert "1,281,167 to train and 50,000 to test, height 64, width 64, channels 3; 1000 classes" in text
    assert "450,450 steps = 90 epochs" in text and "25,557,032 parameters" in text
    assert "augmented by resized_crop_flip" in text


@pytest.mark.slow
def test_digits_can_be_planned_without_a_download(file, capsys):
    config = module(file).get_config("digits")
    assert plasticity_jax.run(config, "unused", dry_run=True) == {}
    text = capsys.readouterr().out
    assert "digits 1.0.0" in text and "programs to compile" in text
    assert not Path("unused").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", ["", "digits", *(pytest.param(p, marks=pytest.mark.long) for p in ("small", "smoke"))]
)
def test_the_paper_is_a_sweep_of_all_studies(preset):
    studies = planner.studies(importlib.import_module("plasticity_jax.configs.paper").get_config(preset))
    assert {study.name for study in studies.values()} == set(studies)
    alone = [module(path).get_config(preset) for path in FILES if path.stem != "remedies"]  # which is of no paper
    others = {"warm_start": ["study=online"], "patterns": ["study=graded"]}
    others |= dict.fromkeys(
        ("multistage", "pretrain_length"), [f"optimiser={name}" for name in ("rmsprop", "sgd", "momentum")]
    )
    alone += [
        importlib.import_module(f"plasticity_jax.configs.{file}").get_config(",".join(filter(None, [preset, arg])))
        for file, args in others.items()
        for arg in args
    ]
    assert {config.name: study_config.parse(config) for config in alone} == studies


@pytest.mark.parametrize("optimiser", base.OPTIMISERS)
def test_optimisers_can_be_chosen(optimiser):
    config = importlib.import_module("plasticity_jax.configs.multistage").get_config(f"small,optimiser={optimiser}")
    name = base.OPTIMISERS[optimiser]["name"]
    (pack,) = study_config.parse(config).packs
    assert {stage.optim.name for stage in pack.plans[0][1]} == {name}


@pytest.mark.parametrize(("arg", "rate"), [("", 0.01), ("small", 0.1), ("smoke", 0.1), ("digits", 0.01)])
def test_small_scales_have_rates_that_fit_their_images(arg, rate):
    for name in ("multistage", "pretrain_length", "tuning_rate", "two_phases"):
        config = importlib.import_module(f"plasticity_jax.configs.{name}").get_config(f"{arg},optimiser=sgd".strip(","))
        assert config.stages.pretrain.optim.learning_rate == rate


def test_an_argument_that_is_misspelt_is_one_line(file):
    with pytest.raises(ConfigError, match="smal: .*did you mean small"):
        module(file).get_config("smal")


def test_digits_has_data_of_its_own():
    with pytest.raises(ConfigError, match="digits and dataset=cifar100 exclude each other"):
        importlib.import_module("plasticity_jax.configs.warm_start").get_config("digits,dataset=cifar100")


def test_the_docstring_tells_how_to_run_it_and_what_comes_out(file):
    text = module(file).__doc__
    for preset in ("", ":small", ":digits"):
        assert f"    python -m plasticity_jax.main --config=configs/{file.stem}.py{preset} --workdir=" in text
    assert re.search(r"\d{4}", text.splitlines()[0])  # the paper
    assert all(word in text for word in ("Protocol", "Claim", "Choices", "Expected", "Cost"))


def test_the_paper_s_protocol_is_what_is_planned():
    """Berariu et al. 2021, section 2 and figure 1: half of the data, then all of it, compared with fresh weights."""
    config = importlib.import_module("plasticity_jax.configs.multistage").get_config()
    study = study_config.parse(config)
    (pack,) = study.packs
    (_, plan), *none = pack.plans
    assert not none and [(stage.name, stage.branch, stage.after) for stage in plan] == [
        ("pretrain", "pretrain", "init"),
        ("tune", "fresh", "init"),
        ("tune", "pretrain+tune", "pretrain"),
    ]
    assert [(stage.epochs, stage.data.fraction, stage.batch_size) for stage in plan] == [
        (350.0, 0.5, 128),
        (500.0, 1.0, 128),
        (500.0, 1.0, 128),
    ]
    assert {(stage.optim.name, stage.optim.learning_rate, stage.augment) for stage in plan} == {("adam", 1e-3, "none")}
    assert {stage.reset.optimiser for stage in plan} == {"all"}
    assert (pack.model.name, pack.model.depth, pack.model.width) == ("resnet", 2, 64)
    assert (study.dataset, study.control, study.window, study.train_images) == ("cifar10", "fresh", 0.2, 0)
    times = prepare.draw_up(pack, study, small.dataset(train=50_000, test=10))
    assert times["pretrain"].steps == [350 * 196] * 5 and times["tune"].steps == [500 * 391] * 10
    window = [epoch for epoch in times["tune"].events if epoch > 400]
    assert window == [float(epoch) for epoch in range(401, 501)]


def small_batches(config):
    """Batches of 16 images, or of two micro-batches, in every stage, so that studies share their programs."""
    sizes = {"batch_size": 16, "micro_batch": 8}

    def shrink(values):
        for key, value in values.items():
            size = sizes.get(key.rpartition(".")[2])
            values[key] = (min(value, size) if size else shrink(value)) if size or hasattr(value, "items") else value
        return values

    shrink(config.stages)
    axes = [(key, shrink(dict(values)) if hasattr(values, "items") else values) for key, values in config.grid]
    config.grid = tuple(axes)


STUDIES = [
    *(pytest.param(path, "digits", id=f"{path.stem}-digits") for path in FILES),
    pytest.param(Path("warm_start.py"), "digits,study=online", id="warm_start-online"),
    pytest.param(Path("patterns.py"), "digits,study=graded", id="patterns-graded"),
]
NETWORKS = [
    pytest.param(Six(10), id="tiny"),  # modules of the same names, compiled in less time
    pytest.param(None, id="its-own"),
]


@pytest.mark.long  # by day all are planned, and test_protocols trains what they are made of
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("path", "arg"), STUDIES)
def test_every_branch_stage_and_pack_runs_on_digits(path, arg, network, tmp_path):
    if network and path.stem == "remedies":
        pytest.skip("some act on units, which the tiny network does not name")
    config = module(path).get_config(arg)
    config.update(seeds=(0,), train_images=96, test_images=50, diagnostics=(), strategy="loop")
    for stage in config.stages.values():
        stage.update(steps=2, eval_every=0)
    if network:
        small_batches(config)
    study = study_config.parse(config)
    result = plasticity_jax.run(config, tmp_path, model=network)
    groups = [(pack, group) for pack in study.packs for group in unfold(pack, study.seeds)]
    by_pack = [[run for of, group in groups if of is pack for run in group.runs if run.final] for pack in study.packs]
    final = [run for runs in by_pack for run in sorted(runs, key=lambda run: run.index)]
    assert [(run["branch"], run["hparams"], run["status"]) for run in result["runs"]] == [
        (run.branch, dict(run.hparams), "finished") for run in final
    ]
    assert all((tmp_path / pack.name / group.name / "end").is_dir() for pack, group in groups)
    others = {run.branch for run in final} - {study.control}
    assert others == {pair["treatment"].partition("[")[0] for pair in result["contrasts"]}


@pytest.mark.long
def test_multistage_runs_on_digits(tmp_path):
    """The network, optimiser and diagnostics of the protocol; everything else is tiny."""
    config = importlib.import_module("plasticity_jax.configs.multistage").get_config("digits")
    config.update(seeds=(0,), train_images=96, test_images=50, strategy="loop")  # compiles each program once
    config.model.update(depth=1, width=2)
    for stage in config.stages.values():
        stage.update(steps=2, eval_every=0, batch_size=64)
    result = plasticity_jax.run(config, tmp_path)
    assert workdir.read_json(tmp_path / "status.json")["compilations"] == 5
    assert [(run["run"], run["status"]) for run in result["runs"]] == [
        ("fresh/seed0", "finished"),
        ("pretrain+tune/seed0", "finished"),
    ]
    assert (result["dataset"], result["gap"]["n"], result["images"]) == ("digits", 1, 3 * 2 * 64)
    metrics = {row["metric"] for row in small.rows(tmp_path, run="pretrain+tune/seed0")}
    assert {"test_accuracy", "train_loss", "distance_to_init/head"} <= metrics
    looked = {f"{split}_{name}" for split in ("train", "test") for name in ("effective_rank", "dormant_fraction")}
    assert looked <= metrics and not {"effective_rank", "dormant_fraction"} & metrics
    distance = small.curve(tmp_path, "pretrain+tune/seed0", "distance_to_init")
    start = small.curve(tmp_path, "pretrain/seed0", "distance_to_init", "pretrain")
    assert start[0] == small.curve(tmp_path, "fresh/seed0", "distance_to_init")[0] == 0 < distance[0] == start[2]
    _, _, stats = plasticity_jax.load(tmp_path, "pretrain+tune", 0)
    assert stats
