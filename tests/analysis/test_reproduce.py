"""A published study comes out again, bit for bit or within what roundings explain, and what differs is told."""

import json
import shutil
import subprocess
import sys

import pytest

from plasticity_jax import analysis, experiment
from plasticity_jax.analysis import collect, reproduce
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs
from tests.support import small, swept, tables

SEEDS = tuple(range(6))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A finished study whose numbers are made up: fresh ends at 80 + seed/10, the warm one 5 points below."""
    directory = tmp_path_factory.mktemp("toy") / "toy"
    stages = {"pretrain": small.stage(epochs=2.0), "tune": small.stage(epochs=3.0, branches=small.WARM)}
    level = lambda label, seed: (80 if label == "fresh" else 75) + seed / 10  # noqa: E731
    tables.write(directory, tables.plan(seeds=SEEDS, **stages), level)
    (directory / "environment.json").write_text(json.dumps({"backend": "cpu", "commit": "a" * 40, "dirty": False}))
    runs = json.loads((directory / "result.json").read_text())["runs"]
    for run in runs:
        run.update(test_accuracy=level(run["branch"], run["seed"]), params_sha256=run["run"])
    (directory / "result.json").write_text(json.dumps({"runs": runs}))
    return directory


@pytest.fixture
def again(toy, tmp_path):
    """Compares the study with a copy of it whose runs a function has changed."""
    shutil.copytree(toy, tmp_path / "again")

    def change(by):
        path = tmp_path / "again" / "result.json"
        result = json.loads(path.read_text())
        for run in result["runs"]:
            run.update(by(run))
        path.write_text(json.dumps(result))
        return reproduce.compare(toy, tmp_path / "again")

    return change


def test_the_same_numbers_are_the_same_bits(toy, again):
    comparison = again(lambda run: {})
    assert (comparison.runs, comparison.same_runs, comparison.facts, comparison.missing) == (12, 12, (), ())
    assert comparison.rows == comparison.same_rows == len(analysis.load(toy))
    assert comparison.same_bits and comparison.agrees
    assert reproduce.describe("toy", comparison).splitlines()[-1] == "toy: bitwise equal"


def test_one_other_measurement_is_told(toy, again, tmp_path):
    table = tmp_path / "again" / "main" / "tune" / "metrics.jsonl"
    lines = table.read_text().splitlines()
    lines[7] = json.dumps(json.loads(lines[7]) | {"value": None})
    table.write_text("\n".join(lines[:-1]) + "\n")
    comparison = again(lambda run: {})
    assert comparison.rows - comparison.same_rows == 2 and comparison.same_runs == 12
    assert not comparison.same_bits and comparison.agrees


NOISE = (0.3, -0.4, 0.1, 0.2, -0.3, 0.05)


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (0.5, False), (-0.5, False)])
def test_other_bits_agree_where_the_differences_scatter_about_zero(shift, agrees, again):
    comparison = again(
        lambda run: {
            "params_sha256": "other",
            "test_accuracy": run["test_accuracy"] + NOISE[run["seed"]] + shift * (run["branch"] == "fresh"),
        }
    )
    assert comparison.same_runs == 0 and not comparison.same_bits and comparison.agrees == agrees
    told = reproduce.describe("toy", comparison)
    assert told.endswith("toy: agrees" if agrees else "toy: DIFFERS")
    assert [line.split()[0] for line in told.splitlines() if line.endswith("differs")] == ["fresh"] * (not agrees)


def test_runs_that_end_otherwise_are_no_agreement(again):
    comparison = again(
        lambda run: (
            {"status": "failed", "test_accuracy": None, "params_sha256": "x"} if run["run"] == "fresh/seed3" else {}
        )
    )
    assert comparison.missing == ("main/fresh/seed3",) and not comparison.agrees


def test_differences_without_scatter_are_none_or_no_agreement(again):
    assert again(lambda run: {"params_sha256": "x"}).agrees
    assert not again(lambda run: {"test_accuracy": run["test_accuracy"] + 1e-3}).agrees


def test_other_facts_of_the_environment_are_named(again, tmp_path):
    facts = {"backend": "gpu", "commit": "b" * 40, "dirty": False}
    (tmp_path / "again" / "environment.json").write_text(json.dumps(facts))
    comparison = again(lambda run: {})
    assert comparison.facts == ("backend", "commit")
    assert "computed with another backend, commit" in reproduce.describe("toy", comparison)


def test_a_plan_is_the_whole_study_and_goes_on(toy, tmp_path):
    config = swept.config(grid=(("model.width", (4, 8)),), seeds=(0, 2))
    published = tables.write(tmp_path / "wide", config, lambda label, seed: 50.0).directory
    (published / "environment.json").write_text("{}")
    study = reproduce.plan(published, tmp_path / "sweep", "/data")
    assert study == tmp_path / "sweep" / "wide"
    listed = jobs.read(tmp_path / "sweep")
    assert [job.pack for job in listed] == ["width=4", "width=8"] and {job.seeds for job in listed} == {(0, 2)}
    assert analysis.load_config(study) == {**analysis.load_config(published), "data_dir": "/data"}
    assert all(jobs.study(tmp_path / "sweep", job).data_dir == "/data" for job in listed)
    assert reproduce.plan(published, tmp_path / "sweep", "/data") == study
    with pytest.raises(LabError, match="holds another study"):
        reproduce.plan(toy, tmp_path / "sweep")


@pytest.mark.parametrize(
    ("taken", "strategy"), [(("cores", "cores"), "cores"), (("cores", "vmap"), "auto"), ((), "auto")]
)
def test_what_auto_was_is_asked_for_where_it_was_one(taken, strategy, toy, tmp_path):
    shutil.copytree(toy, tmp_path / "toy")
    facts = {"choices": {str(i): {"strategy": each} for i, each in enumerate(taken)}}
    (tmp_path / "toy" / "environment.json").write_text(json.dumps(facts))
    assert analysis.load_config(toy)["strategy"] == "auto"
    assert analysis.load_config(reproduce.plan(tmp_path / "toy", tmp_path / "sweep"))["strategy"] == strategy


def test_a_study_in_progress_is_nothing_to_compare_with(toy, tmp_path):
    shutil.copytree(toy, tmp_path / "toy")
    (tmp_path / "toy" / "result.json").unlink()
    with pytest.raises(LabError, match="has no result"):
        reproduce.plan(tmp_path / "toy", tmp_path / "sweep")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study that was really trained, and its collected results."""
    folder = tmp_path_factory.mktemp("trained")
    small.run(swept.config(), folder / "main", dataset=None)
    collect.collect(folder / "main", folder / "published")
    return folder / "published"


@pytest.mark.long
def test_what_its_jobs_train_are_the_published_bits(trained, tmp_path):
    study = reproduce.plan(trained, tmp_path)
    (job,) = jobs.read(tmp_path)
    experiment.run_study(jobs.study(tmp_path, job), jobs.own_directory(tmp_path, job))
    comparison = reproduce.compare(trained, study)
    assert comparison.same_bits and comparison.runs == 4 and comparison.rows > 20 and not comparison.facts


@pytest.mark.long
def test_the_command_trains_and_compares(trained, tmp_path):
    command = [sys.executable, "-m", "plasticity_jax.analysis.reproduce", str(trained), f"--workdir={tmp_path}"]
    done = subprocess.run([*command, "--bits"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "published: bitwise equal"), done.stderr
