"""On a real SLURM, whatever happens to jobs, their results equal those of undisturbed ones."""

import os
import signal
import sys

import numpy as np
import pytest

from plasticity_jax.launch import attempts, jobs, sbatch
from plasticity_jax.storage import metrics
from tests.slurm import cluster

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Study -> its outcome without SLURM, trained at the first request."""
    outcomes = {}

    def outcome(study):
        if study not in outcomes:
            outcomes[study] = cluster.outcome(cluster.undisturbed(study, tmp_path_factory.mktemp(study)))
        return outcomes[study]

    return outcome


def begun(sweep):
    """The array of a sweep of one job, which has begun to train."""
    array = cluster.submit("long", sweep)
    cluster.until(lambda: cluster.trains(sweep), "it trains")
    return array


def finished(sweep, array):
    cluster.until(lambda: cluster.ended(array), "the array has ended")
    told = cluster.run(sys.executable, "-m", "launch.status", str(sweep))
    assert "finished" in told
    return cluster.outcome(sweep)


def restarts(array):
    return int(cluster.field(f"{array}_0", "Restarts"))


HOSTILE = ["a b", "'", '"', "$(id)", "`id`", ";#", "# x", "%j", "é", "--uid=1", "\\", "\\\\", "a\\", "[a&b]|c"]


def test_sbatch_reads_values_as_they_are(tmp_path):
    for value in HOSTILE:
        text = sbatch.write(tmp_path, [0], 1001, sbatch.Wishes({"comment": f"<{value}>"}), sys.executable, tmp_path)
        (tmp_path / "job.sh").write_text(text)
        job = cluster.run("sbatch", "--parsable", "--hold", str(tmp_path / "job.sh")).strip()
        told = cluster.run("scontrol", "show", "job", job)
        cluster.run("scancel", job)
        assert f"Comment=<{value}>" in told


def test_an_array_of_four_in_a_directory_with_a_hostile_name(tmp_path, undisturbed):
    sweep = tmp_path / """it's; $(touch x) "%j" & é #"""
    array = cluster.submit("short", sweep, "--array_parallel=2")
    told = cluster.launch("short", sweep)
    assert "in the queue already" in told and "submitted" not in told
    assert finished(sweep, array) == undisturbed("short")
    assert all("test accuracy" in cluster.output(sweep, array, task) for task in range(4))
    told = cluster.launch("short", sweep)
    assert "all jobs have finished" in told


def test_warned_it_saves_and_comes_back(tmp_path, undisturbed):
    array = begun(tmp_path)
    cluster.run("scancel", "--signal=USR1", array)
    assert finished(tmp_path, array) == undisturbed("long")
    assert restarts(array) == 1
    assert "status 75: back into the queue" in cluster.output(tmp_path, array)


def test_cancelled_it_stays_away_until_the_launcher_sends_it_again(tmp_path, undisturbed):
    array = begun(tmp_path)
    cluster.run("scancel", array)
    cluster.until(lambda: cluster.ended(array), "it is gone")
    assert cluster.field(f"{array}_0", "JobState") == "CANCELLED"
    assert restarts(array) == 0
    assert cluster.state(tmp_path).state == "stopped"
    cluster.run(sys.executable, "-m", "launch.status", str(tmp_path), status=75)
    again = cluster.submit("long", tmp_path)
    assert finished(tmp_path, again) == undisturbed("long")


def test_a_failing_job_gives_up_and_says_why(tmp_path):
    planning = [f"--workdir={tmp_path}", "--config=tests/slurm/study.py:long", *cluster.PLANNED]
    cluster.run(sys.executable, "-m", "launch.sweep", *planning)
    directory = jobs.directory(tmp_path, jobs.read(tmp_path)[0])
    directory.mkdir(parents=True)
    (directory / "main").write_text("where a directory should be")
    array = cluster.submit("long", tmp_path, "--tries=2")
    cluster.until(lambda: cluster.ended(array), "it gave up")
    assert cluster.field(f"{array}_0", "JobState") == "FAILED"
    assert cluster.field(f"{array}_0", "ExitCode") == "1:0"
    assert restarts(array) == 1
    tried = attempts.read(directory)
    assert tried.gave_up and tried.tries == 2
    assert tried.errors[-1] in cluster.run(sys.executable, "-m", "launch.status", str(tmp_path), status=1)
    (directory / "main").unlink()
    again = cluster.submit("long", tmp_path)
    cluster.until(lambda: cluster.trains(tmp_path), "a new launch gives it new tries")
    cluster.run("scancel", again)
    cluster.until(lambda: cluster.ended(again), "it is gone")


@pytest.mark.slow
def test_requeued_by_slurm_it_goes_on(tmp_path, undisturbed):
    array = begun(tmp_path)
    cluster.run("scontrol", "requeue", array)
    assert finished(tmp_path, array) == undisturbed("long")
    assert restarts(array) == 1
    assert "SLURM ends this job" in cluster.output(tmp_path, array)


@pytest.mark.slow
def test_killed_it_goes_on_from_the_last_checkpoint(tmp_path, undisturbed):
    array = begun(tmp_path)
    for process in cluster.processes(tmp_path):
        os.kill(process, signal.SIGKILL)
    assert finished(tmp_path, array) == undisturbed("long")
    assert restarts(array) == 1


@pytest.mark.slow
def test_longer_than_the_time_limit_it_runs_in_slices(tmp_path, undisturbed):
    array = cluster.submit("longer", tmp_path, "--time=1", "--grace=20")
    assert finished(tmp_path, array) == undisturbed("longer")
    assert restarts(array) >= 1


@pytest.mark.slow
def test_two_processes_share_the_runs(tmp_path, undisturbed):
    pytest.importorskip("plasticity_jax.parallel.multihost")
    array = cluster.submit("short", tmp_path, "--tasks_per_node=2", "--array_parallel=1")
    cluster.until(lambda: cluster.ended(array), "the array has ended")
    cluster.run(sys.executable, "-m", "launch.status", str(tmp_path))
    assert "of 2 processes" in cluster.output(tmp_path, array) or "4 x cpu" in cluster.output(tmp_path, array)
    for job in jobs.read(tmp_path):
        tables = undisturbed("short")[job.name][1]
        assert tables
        for name, content in tables.items():
            (tmp_path / "alone").write_bytes(content)
            alone = [row["value"] for row in metrics.read(tmp_path / "alone")]
            together = [row["value"] for row in metrics.read(tmp_path / name)]
            np.testing.assert_allclose(together, alone, rtol=1e-4)
