"""Studies from config to result."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import plasticity_jax
from plasticity_jax import experiment, study_config
from plasticity_jax.config import parse
from plasticity_jax.data import datasets
from plasticity_jax.errors import ConfigError, LabError, Preempted, WorkdirError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import memory
from plasticity_jax.runner import prepare
from plasticity_jax.storage import results, workdir
from tests.support import small

KINDS = {"compile", "begin", "train", "evaluate", "checkpoint", "records"}


def together(**top):
    """The small study, with a strategy that trains all runs in one program call."""
    return small.config(strategy="map", **top)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(directory, result) of one pretraining and two tunings, with two seeds."""
    directory = tmp_path_factory.mktemp("study")
    return directory, small.run(together(), directory)


# The result.


def test_result_file_is_what_run_returns(study):
    directory, result = study
    assert json.loads((directory / "result.json").read_text()) == result
    assert set(result) >= {
        *("status", "dataset", "branches", "gap", "contrasts", "runs"),
        *("images", "images_per_second", "seconds"),
    }
    assert result["status"] == "finished"
    status = workdir.read_json(directory / "status.json")
    assert (status["status"], status["exit_code"], status["pid"]) == ("finished", 0, os.getpid())
    assert status["images"] == status["images_planned"] == result["images"]


def test_result_names_every_final_run(study):
    runs = study[1]["runs"]
    keys = {"run", "pack", "seed", "branch", "hparams", "status", "test_accuracy", "params_sha256"}
    assert all(set(run) == keys for run in runs)
    expected = [(f"{branch}/seed{seed}", seed, branch) for branch in ("fresh", "pretrain+tune") for seed in (0, 1)]
    assert [(run["run"], run["seed"], run["branch"]) for run in runs] == expected
    assert all((run["pack"], run["hparams"], run["status"]) == ("main", {}, "finished") for run in runs)
    assert len(set(small.hashes(study[1]).values())) == len(runs)


def test_test_accuracy_is_the_mean_over_the_window(study):
    directory, result = study
    for run in result["runs"]:
        rows = small.rows(directory, run=run["run"])
        assert run["test_accuracy"] == results.score(rows, 0.5)
        curve = small.curve(directory, run["run"])
        assert list(curve) == [0, 6, 12, 18]
        assert run["test_accuracy"] == np.mean([curve[12], curve[18]])  # steps 10 to 18 are the last half


def test_fingerprints_are_those_of_the_saved_parameters(study):
    directory, result = study
    for run in result["runs"]:
        _, params, _ = plasticity_jax.load(directory, run["branch"], run["seed"])
        assert run["params_sha256"] == parameters.sha256(params)


def test_means_intervals_and_gap(study):
    result = study[1]
    scores = {
        branch: np.array([run["test_accuracy"] for run in result["runs"] if run["branch"] == branch])
        for branch in ("fresh", "pretrain+tune")
    }
    scores["gap"] = scores["fresh"] - scores["pretrain+tune"]
    assert np.ptp(scores["fresh"]) > 0 and scores["gap"].any()  # otherwise the test would show nothing
    for name, values in scores.items():
        summary = result["gap"] if name == "gap" else result["branches"][name]
        assert summary["n"] == 2
        assert summary["mean"] == pytest.approx(values.mean())
        assert summary["sd"] == pytest.approx(values.std(ddof=1))
        half = scipy.stats.t.ppf(0.975, 1) * values.std(ddof=1) / math.sqrt(2)
        assert summary["ci95"] == pytest.approx([values.mean() - half, values.mean() + half])
    assert (result["gap"]["control"], result["gap"]["treatment"]) == ("fresh", "pretrain+tune")
    assert result["contrasts"] == [result["gap"]]


def test_images_count_a_shared_pretraining_once(study):
    result = study[1]
    pretraining, tuning = 2 * 2 * 3 * 16, 4 * 3 * 6 * 16  # runs, epochs, steps, batch
    assert result["images"] == pretraining + tuning
    assert result["images_per_second"] == pytest.approx(result["images"] / result["seconds"]["train"])


def test_seconds_are_split_by_kind(study):
    seconds = study[1]["seconds"]
    assert set(seconds) == KINDS | {"total"}
    assert all(seconds[kind] > 0 for kind in seconds)
    assert sum(seconds[kind] for kind in KINDS) < seconds["total"]


def test_the_seconds_of_training_are_split_by_group(study):
    by_group = study[1]["train_seconds"]
    assert set(by_group) == {"main/pretrain", "main/tune"} and min(by_group.values()) > 0
    assert sum(by_group.values()) == pytest.approx(study[1]["seconds"]["train"])


def test_environment_tells_the_data_apart(study):
    environment = workdir.read_json(study[0] / "environment.json")
    assert environment["dataset"]["sha256"] == small.TOY.sha256
    assert environment["dataset"]["image_shape"] == [8, 8, 1]
    assert environment["choices"] == {"main": {"strategy": "map", "dtype": "float32", "images": "device"}}


def test_result_is_written_at_the_end_only(tmp_path, monkeypatch):
    states = []
    walk = experiment.stage_loop.walk

    def look(group, context):
        outcome = walk(group, context)
        status = workdir.read_json(tmp_path / "status.json")
        states.append((group.name, status["status"], status["stage"], (tmp_path / "result.json").exists()))
        return outcome

    monkeypatch.setattr(experiment.stage_loop, "walk", look)
    small.run(small.config(seeds=(0,)), tmp_path)
    assert states == [("pretrain", "running", "pretrain", False), ("tune", "running", "tune", False)]
    assert (tmp_path / "result.json").exists()


def test_a_finished_study_trains_nothing_again(tmp_path, monkeypatch):
    first, tables = small.run(small.config(), tmp_path), small.tables(tmp_path)

    def train(*args):
        raise AssertionError("a finished study trained again")

    monkeypatch.setattr(prepare.Programs, "advance", train)
    again = small.run(small.config(), tmp_path)
    assert workdir.read_json(tmp_path / "status.json")["compilations"] == 0
    timed = {"seconds", "images_per_second"}
    assert {key: value for key, value in again.items() if key not in timed} == {
        key: value for key, value in first.items() if key not in timed
    }
    assert again["seconds"]["train"] == first["seconds"]["train"]
    assert small.tables(tmp_path) == tables


def test_one_seed_has_no_interval(tmp_path, capsys):
    result = small.run(small.config(seeds=(4,)), tmp_path)
    for summary in (*result["branches"].values(), result["gap"]):
        assert (summary["n"], summary["sd"], summary["ci95"]) == (1, None, [None, None])
    assert result["gap"]["mean"] == pytest.approx(
        result["runs"][0]["test_accuracy"] - result["runs"][1]["test_accuracy"]
    )
    assert "fresh - pretrain+tune" in capsys.readouterr().out


def test_a_single_stage_has_no_gap(tmp_path, capsys):
    result = small.run(small.single(), tmp_path)
    assert (result["gap"], result["contrasts"]) == (None, [])
    assert [run["run"] for run in result["runs"]] == ["train/seed0", "train/seed1"]
    assert result["branches"]["train"]["n"] == 2
    assert result["images"] == 2 * 3 * 6 * 16
    assert "gap" not in capsys.readouterr().out


# Plans.


def test_every_branch_is_compared_with_the_control(tmp_path):
    config = small.config(control="warm")
    config.stages.tune.branches = small.branches(
        fresh={"after": "init"},
        warm={"after": "pretrain"},
        shrunk={"after": "pretrain", "reset": {"modules": ("all",), "shrink": 0.4, "perturb": 0.1}},
    )
    result = small.run(config, tmp_path)
    assert list(result["branches"]) == ["fresh", "warm", "shrunk"]
    assert [(pair["control"], pair["treatment"]) for pair in result["contrasts"]] == [
        ("warm", "fresh"),
        ("warm", "shrunk"),
    ]
    assert result["gap"] == result["contrasts"][0]
    means = {name: branch["mean"] for name, branch in result["branches"].items()}
    for pair in result["contrasts"]:
        assert pair["mean"] == pytest.approx(means["warm"] - means[pair["treatment"]])
    assert result["images"] == 2 * (6 + 3 * 18) * 16


def test_nothing_is_held_out_of_own_arrays(tmp_path):
    with pytest.raises(ConfigError, match="config.holdout=0.2: your arrays come with a test set; set config.holdout=0"):
        small.run(small.config(holdout=0.2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_own_arrays_are_not_resized(tmp_path):
    with pytest.raises(ConfigError, match="config.resize=4: your arrays are used as they are; set config.resize=0"):
        small.run(small.config(resize=4), tmp_path)


@pytest.mark.slow
def test_networks_that_see_the_middle_are_those_of_images_cut_to_it(tmp_path):
    toy = small.TOY
    train, test = (images[:, 2:6, 2:6] for images in (toy.train_images, toy.test_images))
    cut = datasets.from_arrays("toy", train, toy.train_labels, test, toy.test_labels)

    def trained(name, dataset, **top):
        config = small.single(epochs=1.0)
        config.update(mean=(0.5,), std=(0.25,), seeds=(0,), **top)
        result = small.run(config, tmp_path / name, dataset=dataset)
        return small.hashes(result), small.numbers(small.rows(tmp_path / name, "train"))

    assert trained("seen", toy, image_size=4) == trained("cut", cut)
    (last,) = small.rows(tmp_path / "seen", "train", metric="test_accuracy", epoch=1.0)
    kept = plasticity_jax.evaluate(tmp_path / "seen", "train", 0, dataset=toy)
    assert kept["accuracy"] == pytest.approx(last["value"])

    which = {"branch": "train", "seed": 0}
    few = {"steps": 3, "images": 32}
    lines, probes = [], []
    for name, data in (("seen", toy), ("cut", cut)):
        end = (tmp_path / name, which)
        lines.append(plasticity_jax.connectivity(end, end, points=2, images=32, dataset=data))
        probes.append(plasticity_jax.trainability(tmp_path / name, **which, **few, dataset=data))
    assert lines[0] == lines[1] and probes[0] == probes[1]


@pytest.mark.slow
def test_a_grid_over_the_width_makes_packs_of_one_result(tmp_path):
    result = small.run(small.config(grid=(("model.width", (4, 8)),)), tmp_path)
    assert [run["run"] for run in result["runs"]][:2] == [
        "width=4/fresh,width=4/seed0",
        "width=4/fresh,width=4/seed1",
    ]
    assert {run["pack"] for run in result["runs"]} == {"width=4", "width=8"}
    assert list(result["branches"]) == [
        f"{branch}[width={width}]" for width in (4, 8) for branch in ("fresh", "pretrain+tune")
    ]
    assert [pair["treatment"] for pair in result["contrasts"]] == ["pretrain+tune[width=4]", "pretrain+tune[width=8]"]
    assert result["images"] == 2 * 2 * (6 + 2 * 18) * 16
    for width in (4, 8):
        rows = small.rows(tmp_path, pack=f"width={width}")
        assert {row["hparams"]["width"] for row in rows} == {width}
        _, params, _ = plasticity_jax.load(tmp_path, "fresh", 0, hparams={"width": width})
        assert params["layer1"]["kernel"].shape == (64, width)

    alone = small.run(small.config(strategy="loop"), tmp_path / "alone")
    assert (
        small.hashes(alone).items()
        == {
            name.removeprefix("width=8/").replace(",width=8", ""): sha
            for name, sha in small.hashes(result).items()
            if name.startswith("width=8/")
        }.items()
    )


# Divergence.


@pytest.fixture(scope="module")
def diverging(tmp_path_factory):
    """(directory, result) of a grid in which one learning rate is absurd."""
    directory = tmp_path_factory.mktemp("diverging")
    grid = (("stages.tune.optim.learning_rate", (0.1, 1e30)),)
    return directory, small.run(together(grid=grid), directory)


def test_a_diverged_run_is_failed(diverging):
    directory, result = diverging
    assert result["status"] == "finished"
    assert workdir.read_json(directory / "status.json")["status"] == "finished"
    for run in result["runs"]:
        assert run["status"] == ("failed" if run["hparams"]["learning_rate"] == 1e30 else "finished")
        assert (run["test_accuracy"] is None) == (run["status"] == "failed")
    for name, branch in result["branches"].items():
        assert branch["n"] == (0 if "1e+30" in name else 2)
        assert (branch["mean"] is None) == ("1e+30" in name)
    ends = [max(small.curve(directory, run["run"])) for run in result["runs"] if run["status"] == "failed"]
    assert max(ends) < 18  # no further steps are taken, as they would change nothing
    assert result["images"] == 16 * (2 * 6 + 4 * 18 + sum(ends))


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_nothing_is_measured_of_a_diverged_run_in_any_file(diverging):
    """Its outputs are NaN, whose argmax would be class 0; and strict parsers must read every file."""
    directory, result = diverging
    for path in [*directory.rglob("*.json"), *directory.rglob("*.jsonl")]:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)
    lost = [run["run"] for run in result["runs"] if run["status"] == "failed"]
    ends = {(row["run"], row["metric"]): row for row in small.rows(directory)}  # the last of each
    for run in lost:
        assert {"test_accuracy", "test_loss"} <= {name for one, name in ends if one == run}
    for (run, name), row in ends.items():
        measured = name not in ("gradient_norm", "learning_rate")
        assert (row["value"] is None) == (run in lost) or not measured, row


def test_neighbours_of_a_diverged_run_do_not_notice(diverging, study):
    directory, result = diverging
    for run in result["runs"]:
        if run["status"] == "finished":
            calm = f"{run['branch']}/seed{run['seed']}"
            assert run["params_sha256"] == small.hashes(study[1])[calm]
            rows = small.rows(directory, run=run["run"])
            assert small.numbers(rows) == small.numbers(small.rows(study[0], run=calm))


def test_the_table_names_what_failed(diverging):
    text = results.table(diverging[1])
    assert "failed, left out (4): fresh,learning_rate=1e+30/seed0" in text.replace("\n", " ")


@pytest.mark.slow
def test_a_study_without_any_good_run_is_failed(tmp_path, capsys):
    config = small.single()
    config.diagnostics = ("dormant_fraction", "effective_rank")  # of NaNs none is dormant, and their rank would be 0
    config.stages.train.optim.learning_rate = 1e30
    result = small.run(config, tmp_path)
    assert result["status"] == "failed"
    assert result["branches"]["train"]["mean"] is None
    status = workdir.read_json(tmp_path / "status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 1)
    assert "failed, left out (2)" in capsys.readouterr().out
    for metric in (f"{split}_{name}" for split in ("train", "test") for name in config.diagnostics):
        *before, (_, last) = sorted(small.curve(tmp_path, "train/seed0", metric, "train").items())
        assert last is None and before and all(value is not None for _, value in before)


# The plan, before anything is trained.


def promised(text: str) -> int:
    """The number of programs that a plan announces to compile."""
    return int(re.search(r"(\d+) programs? to compile", text)[1])


def test_dry_run_writes_nothing_and_tells_the_plan(tmp_path, capsys):
    settings = together(diagnostics=("weight_norm",))
    assert small.run(settings, tmp_path / "new", dry_run=True) == {}
    assert list(tmp_path.iterdir()) == []
    text = capsys.readouterr().out
    assert "stage pretrain: 2 runs (pretrain), 6 steps = 2 epochs of 48 images in batches of 16" in text
    assert "stage tune: 4 runs (fresh, pretrain+tune), 18 steps = 3 epochs of 96 images in batches of 16" in text
    assert f"{(2 * 6 + 4 * 18) * 16:,} training images in all" in text
    assert f"{64 * 8 + 8 + 8 * 3 + 3} parameters" in text
    assert "cpu" in text and "strategy map" in text
    assert promised(text) == 9  # init; begin, advance, evaluate and diagnose for two runs and for four


def plans():
    """Studies that share programs in different ways."""
    yield "one", small.single()
    yield "two", together()
    alike = small.config()  # both stages have the same runs, so they share all programs
    alike.stages.tune.branches = small.branches(warm={"after": "pretrain"})
    yield "alike", alike
    rules = small.config()
    rules.stages.tune.branches = small.branches(warm={"after": "pretrain"})
    rules.stages.pretrain.optim.update(name="adam", momentum=0.0)
    yield "rules", rules
    measured = small.config(train_eval_images=1000, validation_images=8, diagnostics=("weight_norm",))
    yield "measured", measured


@pytest.mark.parametrize(
    "planned",
    [pytest.param(found, id=name, marks=() if name == "rules" else pytest.mark.slow) for name, found in plans()],
)
def test_as_many_programs_are_compiled_as_promised(planned, tmp_path, capsys):
    small.run(planned, tmp_path, dry_run=True)
    plan = capsys.readouterr().out
    small.run(planned, tmp_path)
    assert workdir.read_json(tmp_path / "status.json")["compilations"] == promised(plan)


# What is refused.


def test_a_second_process_is_refused(tmp_path):
    with workdir.lock(tmp_path), pytest.raises(WorkdirError, match=f"in use by process {os.getpid()}"):
        small.run(small.config(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.parametrize("left", [None, "process 1 on another machine\n"])
def test_a_directory_that_is_deleted_or_replaced_meanwhile_is_left_alone(left, tmp_path, monkeypatch):
    """Whoever deletes a directory and begins anew has no files of the study that is still training there."""
    directory, calls = tmp_path / "run", itertools.count()

    def stopped():
        if next(calls) == 2:
            shutil.rmtree(directory)
            if left:
                directory.mkdir()
                (directory / ".lock").write_text(left)
        return False

    monkeypatch.setattr(experiment.signals, "listening", lambda: contextlib.nullcontext(stopped))
    with pytest.raises(WorkdirError, match="was deleted or replaced while this study trained in it"):
        small.run(small.single(), directory)
    assert [path.name for path in directory.rglob("*")] == ([".lock"] if left else [])


def test_another_config_is_refused(study):
    directory, result = study
    before = {path: path.read_bytes() for path in directory.glob("*.json")}
    config = together()
    config.stages.tune.optim.learning_rate = 0.3
    with pytest.raises(WorkdirError, match=r"(?s)another config.*tune/fresh\.optim\.learning_rate: 0\.1 -> 0\.3"):
        small.run(config, directory)
    assert {path: path.read_bytes() for path in directory.glob("*.json")} == before


def test_other_images_are_refused(study):
    with pytest.raises(LabError, match="other images"):
        small.run(together(), study[0], dataset=small.dataset(seed=1))
    assert workdir.read_json(study[0] / "status.json")["status"] == "finished"


def test_a_file_is_no_workdir(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(WorkdirError, match="cannot make directory"):
        small.run(small.config(), path)
    assert path.read_text() == "mine"


def test_a_read_only_workdir_is_one_error(tmp_path, monkeypatch):
    """Permissions do not bind root, so the refusal of the system is simulated."""
    real = os.open

    def refuse(path, flags, *args, **options):
        if str(path).startswith(str(tmp_path)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WorkdirError, match="cannot write workdir .*Permission denied"):
        small.run(small.config(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_error_and_the_study_goes_on(tmp_path, study, monkeypatch):
    append = experiment.stage_loop.metrics.Table.append

    def refuse(self, rows):
        if rows[0]["stage"] == "tune" and rows[0]["step"] == 12:
            raise WorkdirError("cannot write: No space left on device")
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.stage_loop.metrics.Table, "append", refuse)
        with pytest.raises(WorkdirError, match="No space left"):
            small.run(together(), tmp_path)
    status = workdir.read_json(tmp_path / "status.json")
    assert (status["status"], status["exit_code"]) == ("failed", 1)
    assert "No space left" in status["error"]
    assert small.hashes(small.run(together(), tmp_path)) == small.hashes(study[1])
    assert small.tables(tmp_path) == small.tables(study[0])


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_reset_of_an_unknown_module_is_refused_before_anything_is_trained(tmp_path, dry_run):
    config = small.config()
    config.stages.tune.reset.modules = ("hed",)
    with pytest.raises(ConfigError, match="'hed'.*head"):
        small.run(config, tmp_path, dry_run=dry_run)
    assert not list(tmp_path.glob("**/metrics.jsonl"))


# A user's own parts.


def test_own_network_reset_and_diagnostic(tmp_path):
    def forget(state, fresh):
        return state.replace(params={**state.params, "head": fresh.params["head"]}, stats=fresh.stats)

    def head(state, batch):
        assert batch["image"].shape == (512, 8, 8, 1) and batch["logits"].shape == (512, 3)
        return {"head_norm": jnp.sqrt(jnp.sum(state.params["head"]["kernel"] ** 2))}

    config = small.config(seeds=(0,), control="pretrain+tune", diagnostics=("weight_norm",))
    del config.stages.tune.branches["fresh"]
    config.stages.tune.reset.function = "forget"
    given = dict(model=small.Net(), resets={"forget": forget}, diagnostics={"head": head})
    result = small.run(config, tmp_path, **given)
    assert result["status"] == "finished"

    name = "pretrain+tune/seed0"
    (metrics,) = {tuple(row["metric"] for row in small.rows(tmp_path, run=name, step=step)) for step in (6, 12, 18)}
    assert {"train_head_norm", "test_head_norm", "weight_norm", "weight_norm/head", "test_accuracy"} <= set(metrics)
    module, params, stats = plasticity_jax.load(tmp_path, "pretrain+tune", 0, model=small.Net())
    assert isinstance(module, small.Net) and set(stats) == {"norm"}
    norms = small.curve(tmp_path, name, "test_head_norm")
    assert norms[18] == pytest.approx(np.linalg.norm(params["head"]["kernel"]))
    before = small.curve(tmp_path, "pretrain/seed0", "test_head_norm", "pretrain")
    assert norms[0] != before[6]  # the head is fresh
    kept = [
        small.curve(tmp_path, name, "weight_norm/conv")[0],
        *small.curve(tmp_path, "pretrain/seed0", "weight_norm/conv", "pretrain").values(),
    ]
    assert kept[0] == kept[-1] != kept[1]  # the convolution is not


OWN = """
import jax.numpy as jnp
from plasticity_jax.models import mlp

def narrow(model, classes):
    return mlp.MLP(classes, 1, model.width, jnp.dtype("float32"))

def forget_head(state, fresh):
    return state.replace(params={**state.params, "head": fresh.params["head"]})

def head_size(state, batch):
    return {"head_size": jnp.float32(state.params["head"]["kernel"].size)}
"""


@pytest.mark.long  # by day remedies are; other custom code is refused in tests/storage/test_conditions.py
def test_own_parts_are_named_in_the_config(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = small.config(seeds=(0,), diagnostics=("my_parts:head_size",))
    config.model.update(name="my_parts:narrow", width=3)
    config.stages.tune.reset.function = "my_parts:forget_head"
    result = small.run(config, tmp_path / "run")
    assert result["status"] == "finished"
    _, params, _ = plasticity_jax.load(tmp_path / "run", "fresh", 0)
    assert params["layer1"]["kernel"].shape == (64, 3)
    assert set(small.curve(tmp_path / "run", "fresh/seed0", "head_size").values()) == {9.0}
    kept = [small.curve(tmp_path / "run", "pretrain/seed0", "test_accuracy", "pretrain")[6]]
    kept += [small.curve(tmp_path / "run", "pretrain+tune/seed0")[0]]
    assert kept[0] != kept[1]  # the head is fresh

    (tmp_path / "my_parts.py").write_text(OWN.replace("classes, 1,", "classes, 2,"))
    sys.modules.pop("my_parts")
    with pytest.raises(LabError, match="other custom code .model my_parts:narrow"):  # other code, so another study
        small.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"diagnostics": ("nowhere:thing",)}, "diagnostics='nowhere:thing': there is no module nowhere"),
        ({"model.name": "nowhere:net"}, "model.name='nowhere:net': there is no module nowhere"),
        ({"stages.tune.reset.function": "nowhere:reset"}, "reset.function='nowhere:reset': there is no module nowhere"),
    ],
)
def test_an_own_part_that_is_not_there_is_one_line(change, problem, tmp_path):
    config = small.config(seeds=(0,))
    with config.unlocked():
        config.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=problem):
        small.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("outputs", "classes", "shape"), [(2, (), r"\(2, 2\)"), (4, (0, 2), r"\(2, 4\)"), (None, (), r"\(2,\)")]
)
def test_a_head_that_does_not_tell_the_classes_apart_is_one_line(outputs, classes, shape, tmp_path):
    class Head(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            logits = nn.Dense(outputs or 1, name="head")(images.reshape(len(images), -1))
            return logits if outputs else logits[:, 0]

    config = small.single()
    config.stages.train.data.classes = classes
    with pytest.raises(ConfigError, match=rf"logits of the shape {shape} .*toy has 3 classes") as error:
        small.run(config, tmp_path / "w", model=Head(), dry_run=True)
    assert "\n" not in str(error.value) and not (tmp_path / "w").exists()


def test_a_plan_tells_height_width_and_channels_and_what_looks_wrong(tmp_path, capsys):
    small.run(small.single(), tmp_path, dry_run=True)
    plan = capsys.readouterr().out
    assert "images: 96 to train and 60 to test, height 8, width 8, channels 1; 3 classes" in plan
    assert "note" not in plan
    first, labels = np.zeros((30, 3, 32, 32), np.uint8), np.arange(30) % 3
    data = datasets.from_arrays("turned", first, labels, first, labels)
    small.run(small.single(), tmp_path, dataset=data, dry_run=True)
    plan = capsys.readouterr().out
    assert "height 3, width 32, channels 32" in plan and "note: 32 channels" in plan


@pytest.mark.slow
def test_own_images_need_no_square_and_any_channels(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 6, 5, 2), dtype=np.uint8), np.arange(60) % 4
    dataset = datasets.from_arrays("own", images[:40], labels[:40], images[40:], labels[40:])
    result = small.run(small.single(epochs=1.0), tmp_path, dataset=dataset)
    _, params, _ = plasticity_jax.load(tmp_path, "train", 0)
    assert params["layer1"]["kernel"].shape == (60, 8) and params["head"]["kernel"].shape == (8, 4)
    assert result["images"] == 2 * math.ceil(40 / 16) * 16


def test_more_images_than_there_are_is_refused(tmp_path):
    for key in ("train_images", "test_images", "validation_images"):
        with pytest.raises(ConfigError, match=key):
            small.run(small.config(**{key: 97}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_parsed_study_survives_its_file(study):
    directory, _ = study
    described = workdir.read_json(directory / "config.json")
    assert described == parse.describe(study_config.parse(together()))


@pytest.mark.slow
def test_what_auto_meant_at_first_holds_on_resume(tmp_path, monkeypatch):
    config = small.single()
    config.seeds = (0,)  # for which auto means the same on any number of cores
    config.strategy = config.model.dtype = "auto"
    trained = []

    def look(group, context):
        trained.append((context.programs.strategy, str(context.programs.model.dtype), context.place))
        raise Preempted("stopped")

    monkeypatch.setattr(experiment.stage_loop, "walk", look)
    monkeypatch.setattr(memory, "free", lambda device: None)  # or programs are compiled first, to see whether they fit
    with pytest.raises(Preempted):
        small.run(config, tmp_path)
    path = tmp_path / "environment.json"
    begun = workdir.read_json(path)
    assert begun["choices"] == {"main": {"strategy": "vmap", "dtype": "float32", "images": "device"}}
    begun["choices"]["main"] = {"strategy": "loop", "dtype": "bfloat16", "images": "host"}
    workdir.write_json(path, begun)
    with pytest.raises(Preempted):
        small.run(config, tmp_path)
    config.images = "device"  # which may change
    with pytest.raises(Preempted):
        small.run(config, tmp_path)
    kept = "loop", "bfloat16"
    assert trained == [("vmap", "float32", "device"), (*kept, "host"), (*kept, "device")]
