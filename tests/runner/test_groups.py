"""Branches of one stage may differ in compiled fields: they train group by group, without any other visible effect."""

import os
import signal

import pytest
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import analysis, experiment
from plasticity_jax.config import spec
from plasticity_jax.configs import base
from plasticity_jax.errors import Preempted
from plasticity_jax.models import parameters
from plasticity_jax.parallel import programs
from plasticity_jax.runner import dispatch, start
from plasticity_jax.storage import metrics
from plasticity_jax.storage.checkpoints import Checkpoints
from tests.support import small

ADAM = base.optimiser("adam", learning_rate=0.01)
HALF = {"modules": ("head",), "shrink": 0.5, "perturb": 0.5}
TUNE = {
    "fresh": {"after": "init"},
    "large": {"after": "pretrain", "batch_size": 32},
    "head": {"after": "pretrain", "optim": ADAM, "trained": ("head",), "micro_batch": 8, "ema": 0.5, "reset": HALF},
    "doubled": {"after": "init", "batch_size": 32},
    "warm": {"after": "pretrain"},
}
LAST = {"of_large": {"after": "tune/large@1"}, "of_head": {"after": "tune/head"}}
GROUPS = {"tune,1": {"fresh", "warm"}, "tune,2": {"large", "doubled"}, "tune,3": {"head"}}


def config(**branches) -> ConfigDict:
    """A study with some branches of `tune`."""
    settings = small.config(seeds=(0,), control=next(iter(branches)))
    settings.stages.tune.epochs, settings.stages.tune.branches = 2.0, small.branches(**branches)
    if not any(branch["after"] == "pretrain" for branch in branches.values()):
        del settings.stages.pretrain
    return settings


def whole() -> ConfigDict:
    """A study with groups in one stage, and a stage that continues from two of them."""
    found = config(**TUNE)
    found.stages.last = small.stage(epochs=1.0, branches=small.branches(**LAST))
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(directory, result) of the whole study."""
    directory = tmp_path_factory.mktemp("groups")
    return directory, small.run(whole(), directory)


def rows(directory, branch: str, stage: str = "tune") -> list[metrics.Row]:
    """The rows of a branch in a stage, from whichever table holds them."""
    tables = sorted(path.name for path in (directory / "main").glob(f"{stage}*"))
    return [row for table in tables for row in small.rows(directory, table) if row["branch"] == branch]


@pytest.mark.slow
def test_each_group_has_a_directory_and_a_stage_of_one_group_has_its_own(study):
    directory, _ = study
    directories = sorted(path.parent.parent.name for path in (directory / "main").glob("*/end/0"))
    assert directories == ["last", "pretrain", *GROUPS]
    for group, branches in GROUPS.items():
        table = small.rows(directory, group)
        assert {row["branch"] for row in table} == branches and {row["stage"] for row in table} == {"tune"}


@pytest.mark.parametrize("branch", ["fresh", "large", "head"])
def test_a_run_is_the_same_as_the_only_branch_of_its_stage(branch, study, tmp_path):
    directory, _ = study
    alone = small.run(config(**{branch: TUNE[branch]}), tmp_path)
    assert (tmp_path / "main" / "tune" / "end" / "0").is_dir()
    assert rows(directory, branch) == rows(tmp_path, branch) != []
    _, params, _ = plasticity_jax.load(directory, branch, 0, "tune")
    assert parameters.sha256(params) == small.hashes(alone)[f"{branch}/seed0"]


def test_groups_of_a_stage_see_the_same_batches(tmp_path):
    """Clipping that never happens is compiled and has no effect: only other batches could make a difference."""
    result = small.run(config(fresh=TUNE["fresh"], clipped={"after": "init", "optim": {"clip_norm": 1e9}}), tmp_path)
    assert small.numbers(small.rows(tmp_path, "tune,1")) == small.numbers(small.rows(tmp_path, "tune,2"))
    assert len(result["runs"]) == 2 and len(set(small.hashes(result).values())) == 1


def test_results_come_in_the_order_of_the_plan(study):
    _, result = study
    assert [run["branch"] for run in result["runs"]] == ["fresh", "doubled", "warm", "of_large", "of_head"]


@pytest.mark.parametrize(("branch", "parent", "epoch"), [("of_large", "large", 1), ("of_head", "head", spec.END)])
def test_a_later_stage_continues_from_branches_of_any_group(branch, parent, epoch, study):
    directory, _ = study
    first = {row["step"]: row["value"] for row in rows(directory, branch, "last") if row["metric"] == "test_loss"}[0]
    before = [row["value"] for row in rows(directory, parent) if row["metric"] == "test_loss"]
    assert len(before) == 3 and first == before[epoch]
    network = plasticity_jax.load(directory, parent, 0, "tune", epoch=epoch)[1]
    assert parameters.sha256(plasticity_jax.load(directory, branch, 0)[1]) != parameters.sha256(network)


def test_the_table_of_a_study_holds_all_groups(study):
    directory, _ = study
    table = analysis.load(directory)
    assert set(table[table.stage == "tune"].branch) == set(TUNE) and set(table.status) == {"finished"}
    assert len(table) == sum(len(metrics.read(path)) for path in directory.rglob("metrics.jsonl"))


def test_event_files_of_all_groups_stay(study):
    directory, _ = study
    files = [path for path in (directory / "tensorboard").rglob("*") if "@tune" in path.name]
    assert {path.relative_to(directory / "tensorboard").parts[0] for path in files} == set(TUNE)


class Killed(BaseException):
    """Is never caught, so nothing is saved after it."""


@pytest.mark.slow
def test_stopped_within_and_killed_between_groups(study, tmp_path, monkeypatch):
    """At these steps of these branches, one after the other; the result is that of an uninterrupted study."""
    places, trained = [("large", 4), ("head", 0), ("of_large", 0)], []
    real = programs.Programs.advance

    def advance(self, stage, states, *args):
        trained.append((stage.branch, int(states.step.max())))
        if trained[-1] in places[:1] and places.pop(0) != ("large", 4):
            raise Killed
        if trained[-1] == ("large", 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, stage, states, *args)

    monkeypatch.setattr(programs.Programs, "advance", advance)
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    for expected in (Preempted, Killed, Killed):
        with pytest.raises(expected):
            small.run(whole(), tmp_path)
    result = small.run(whole(), tmp_path)
    begun = [branch for branch, step in trained if step == 0]
    assert begun == ["pretrain", "fresh", "large", "head", "head", "of_large", "of_large"]
    directory, unbroken = study
    assert small.tables(tmp_path) == small.tables(directory)
    assert result["runs"] == unbroken["runs"] and result["images"] == unbroken["images"]


def test_a_dry_run_shows_the_groups(tmp_path, capsys):
    small.run(whole(), tmp_path, dry_run=True)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("stage tune")]
    assert lines[0].startswith("stage tune,1: 2 runs (fresh, warm), 12 steps") and "separate" not in lines[0]
    assert lines[1].startswith("stage tune,2: 2 runs (large, doubled), 6 steps")
    assert lines[1].endswith("; a separate group: batch_size=32")
    assert all(told in lines[2] for told in ("micro_batch=8", "trained=('head',)", "optim.name='adam'", "ema > 0=True"))


@pytest.mark.parametrize("strategy", ["map", pytest.param("cores", marks=pytest.mark.long)])
def test_the_next_group_finds_its_parents_on_the_devices(strategy, tmp_path, monkeypatch):
    """The result equals that from the disk, which is used for a parent of several runs, or of an earlier epoch."""
    config = small.config(strategy=strategy, seeds=(0, 1, 2))
    branches = {**small.WARM, "again": {"after": "pretrain"}, "early": {"after": "pretrain@1"}}
    config.stages.tune.update(epochs=1.0, branches=small.branches(**branches), reset={"optimiser": "keep"})
    reads, restore = [], Checkpoints.restore

    def reading(self, *args):
        reads.append(self.directory.name)
        return restore(self, *args)

    monkeypatch.setattr(Checkpoints, "restore", reading)
    result = small.run(config, tmp_path / "devices")
    assert "end" not in reads and "snapshots" in reads
    monkeypatch.setattr(start, "leave", lambda *args: None)
    reads.clear()
    assert small.hashes(small.run(config, tmp_path / "disk")) == small.hashes(result) and "end" in reads
    assert small.tables(tmp_path / "disk") == small.tables(tmp_path / "devices")


@pytest.mark.slow
def test_what_nobody_continues_from_leaves_the_devices(tmp_path, monkeypatch):
    kept, walk = [], experiment.stage_loop.walk

    def walking(group, context):
        ended = walk(group, context)
        kept.append((group.stage.name, [*context.left]))
        return ended

    monkeypatch.setattr(experiment.stage_loop, "walk", walking)
    small.run(small.config(strategy="map"), tmp_path)
    assert kept == [("pretrain", ["pretrain"]), ("tune", [])]
