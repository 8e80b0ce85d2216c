"""The command that plans, and whole sweeps: trained by children, killed and extended, they equal what `main` makes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pandas as pd
import pytest

import plasticity_jax
from plasticity_jax import analysis, target
from plasticity_jax.config import paths
from plasticity_jax.launch import job_states, jobs, status, sweep
from plasticity_jax.parallel import memory
from plasticity_jax.profiling import cost, memory_check
from plasticity_jax.storage import workdir
from tests.support import commands, small, swept
from tests.support.commands import ROOT

# ml_collections loads config files by a deprecated method.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def call(capsys):
    """Calls the command in this process; returns (status, output, errors)."""
    return lambda *args: commands.call(sweep.main, *args, capture=capsys)


@pytest.fixture
def measured(monkeypatch):
    """The packs for which a measurement was requested; none is made."""
    calls = []

    def measure(pack, study, dataset, say, time_it=True):
        calls.append((pack.model.width, time_it))
        return cost.Cost((), {"pretrain": 100.0, "tune": 50.0} if time_it else None, pack.model.name, study.strategy)

    monkeypatch.setattr(cost, "measure", measure)
    return calls


def stamps(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != ".lock"}


def test_a_plan_is_shown_and_written(call, measured, tmp_path):
    config, workdir_ = f"--config={swept.file(tmp_path)}", f"--workdir={tmp_path}/sweep"
    code, out, _ = call(config, workdir_, "--dry_run")
    assert code == 0 and not (tmp_path / "sweep").exists()
    assert call(config, workdir_)[:2] == (0, out)
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["width=4,seeds=0-1", "width=8,seeds=0-1"]
    # pretraining 2 epochs of 3 steps, shared by two rates that tune twice 3 epochs of 6 steps, of 2 seeds
    images = [2 * 6 * 16, 2 * 2 * 2 * 18 * 16]
    listed = jobs.read(tmp_path / "sweep")
    assert [(job.runs, job.images, job.bytes) for job in listed] == [(8, sum(images), None)] * 2
    assert listed[0].seconds == pytest.approx(images[0] / 100 + images[1] / 50)
    assert lines[-1] == f"2 jobs, 16 runs, {2 * sum(images):,} images, 0.03 device hours expected"
    assert measured == [(4, True), (8, True)] * 2
    before = stamps(tmp_path / "sweep")
    code, out, _ = call(config, workdir_)
    assert code == 0 and "2 jobs (0 new)" in out
    assert stamps(tmp_path / "sweep") == before and len(measured) == 4


def test_memory_is_that_of_the_device_that_is_compiled_for(call, tmp_path, monkeypatch):
    asked = []

    @contextlib.contextmanager
    def described(name):
        asked.append(name)
        with target.using(target.Target((jax.devices()[0],), 5 * 10**9)):
            yield

    def measure(pack, study, dataset, say, time_it=True):
        assert target.is_described()
        line = memory.Line(10**9, 10**9)
        needs = tuple(memory_check.Need(stage, "advance", 2, line, line) for stage in ("pretrain", "tune"))
        return cost.Cost(needs, None, pack.model.name, study.strategy)

    monkeypatch.setattr(target, "described", described)
    monkeypatch.setattr(cost, "measure", measure)
    call_ = f"--config={swept.file(tmp_path)}", f"--workdir={tmp_path}/sweep", "--compile_for=h100"
    assert call(*call_)[0] == 0 and asked == ["h100"]
    listed = jobs.read(tmp_path / "sweep")
    assert [(job.runs, job.seconds) for job in listed] == [(4, None)] * 4  # of 8 runs on 5 GB four fit beside 1 GB
    assert {job.bytes for job in listed} == {5 * 10**9}
    code, _, err = call(*call_, "--hours=1")
    assert code == 1 and "error: --hours with --compile_for needs --images_per_second" in err


def test_jobs_without_room_for_their_paths_are_not_planned(call, measured, tmp_path):
    longest = os.pathconf("/", "PC_PATH_MAX") - paths.BELOW
    place = tmp_path
    while len(str(place)) + 200 < longest:
        place /= "x" * 100
    place /= "x" * (longest - len(str(place)) - 1)  # a path just short enough for the sweep, but not for its jobs
    code, _, err = call(f"--config={swept.file(tmp_path)}", f"--workdir={place}")
    last = err.splitlines()[-1]  # the lines before it tell what is timed
    assert code == 1 and last.startswith("error: ") and "the path is too long; use another directory" in last
    assert not list(tmp_path.rglob("*.json"))


def test_budgets(call, measured, tmp_path):
    config = f"--config={swept.file(tmp_path)}"
    args = [config, "--dry_run", "--config.seeds=0,1,2,3"]
    assert "8 jobs" in call(*args, "--runs_per_job=4")[1]
    assert "16 jobs" in call(*args, "--runs_per_job=2")[1]
    assert "4 jobs" in call(*args, "--hours=0.014")[1]
    out = call(*args, "--hours=0.0001")[1]
    assert out.count("longer than --hours: needs several restarts") == 16
    out = call(*args, "--images_per_second=1000000")[1]
    assert "2 jobs" in out and measured[-1] == (8, False)


def test_a_grown_config_adds_jobs(call, measured, tmp_path):
    config, workdir_ = f"--config={swept.file(tmp_path)}", f"--workdir={tmp_path}/sweep"
    call(config, workdir_)
    first = jobs.read(tmp_path / "sweep")
    assert "4 jobs (2 new)" in call(config, workdir_, "--config.seeds=0,1,2")[1]
    assert jobs.read(tmp_path / "sweep")[:2] == first
    assert json.loads((tmp_path / "sweep" / "study" / "planned.json").read_text()) == [0, 1]  # before it grew
    assert "4 jobs (2 new)" not in call(config, workdir_, "--config.seeds=0,1,2")[1]
    code, _, err = call(config, workdir_, "--config.seeds=0,1,2", "--config.window=0.25")
    assert code == 1 and err.count("\n") == 1 and "window was 0.5 and is 0.25" in err
    code, _, err = call(f"{config}:two", workdir_)
    assert code == 1 and "study study is missing" in err
    assert len(jobs.read(tmp_path / "sweep")) == 4


def test_only_one_plans_at_a_time(call, measured, tmp_path):
    planned = []

    def plan() -> None:
        with workdir.lock(tmp_path / "sweep"):
            locked.set()
            time.sleep(1.0)  # three polls of a waiting process
            planned.append((tmp_path / "sweep/sweep.json").exists())

    locked, other = threading.Event(), threading.Thread(target=plan)
    other.start()
    locked.wait()
    code, _, err = call(f"--config={swept.file(tmp_path)}", f"--workdir={tmp_path}/sweep")
    other.join()
    assert code == 0 and err.count("another process is planning") == 1 and planned == [False]
    assert jobs.read(tmp_path / "sweep")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--config is missing"),
        (["--config=FILE"], "--workdir is missing"),
        (["--config=FILE", "--dry_run", "--hours=0"], "--hours=0.0: must be above 0"),
        (["--config=FILE", "--dry_run", "--hours=-1"], "hours"),
        (["--config=FILE", "--dry_run", "--memory_gb=nan"], "memory_gb"),
        (["--config=FILE", "--dry_run", "--runs_per_job=0"], "runs_per_job"),
        (["--config=FILE", "--dry_run", "--runs_per_jobs=1"], "runs_per_job"),
        (["--config=FILE", "--dry_run", "--config.sead=1"], "did you mean --config.seeds?"),
        (["--config=FILE:two", "--dry_run", "--config.studies.a.window=3"], "study a: config.window=3.0"),
        (["--config=FILE:two", "--dry_run", "--config.studies.c.window=3"], "--config.studies.c.window: there is no"),
        (["--config=FILE", "--dry_run", "more"], "'more' is not a flag"),
    ],
)
def test_mistakes_take_one_line(call, measured, tmp_path, args, message):
    file = str(swept.file(tmp_path))
    commands.refused(call(*[arg.replace("FILE", file) for arg in args]), message)


def test_a_long_table_is_cut():
    listed = [jobs.Job(f"seeds={i}", "s", "main", (0,), (i,), 2, 1000, 1.0, 2_500_000) for i in range(1000)]
    lines = sweep.table(listed, 1000).splitlines()
    assert len(lines) == sweep.SHOWN + 3
    assert lines[-7] == "... 970 more jobs ..." and lines[-2].startswith("seeds=999 ")
    assert lines[1].split() == ["seeds=0", "2", "1,000", "2.5", "MB", "1", "s"]
    assert lines[-1] == "1,000 jobs, 2,000 runs, 1,000,000 images, 0.28 device hours expected"


# Whole sweeps.


def launch(*args: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "launch.local", *args], cwd=ROOT)


def same(frame: pd.DataFrame, other: pd.DataFrame) -> None:
    """Whether two tables hold the same rows, in any order."""
    columns = list(other)
    frames = [each[columns].sort_values(columns[:-1], ignore_index=True) for each in (frame, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(config file, directory, result) of the study trained by `main`, with a third seed."""
    folder = tmp_path_factory.mktemp("main")
    names: dict = {}
    exec(swept.FILE, names)
    config = names["get_config"]()
    config.seeds = (0, 1, 2)
    return swept.file(folder), folder / "main", plasticity_jax.run(config, folder / "main")


@pytest.mark.long
def test_a_sweep_is_what_main_makes_also_when_it_grew(undisturbed, tmp_path):
    """Two jobs in parallel on a core each, each one seed of a width, then another seed; the points apart at the end."""
    file, directory, result = undisturbed
    args = [f"--config={file}", f"--workdir={tmp_path}", "--parallel=2", "--images_per_second=1000"]
    assert launch(*args, "--runs_per_job=2").wait() == 0
    assert len(jobs.read(tmp_path)) == 8  # a rate, a width and a seed each: the pretraining is done twice
    assert launch(*args, "--config.seeds=0,1,2").wait() == 0
    assert len(jobs.read(tmp_path)) == 10
    same(analysis.load(tmp_path / "study"), analysis.load(directory))
    same(analysis.load(tmp_path).drop(columns="study"), analysis.load(directory))
    joined = analysis.load_result(tmp_path / "study")
    assert small.hashes(joined) == small.hashes(result)
    for key in ("status", "dataset", "branches", "gap", "contrasts", "runs"):
        assert joined[key] == result[key]
    assert analysis.load_config(tmp_path / "study") == analysis.load_config(directory)
    assert status.main([str(tmp_path)]) == 0


@pytest.mark.long
def test_a_sweep_that_is_killed_at_random_is_the_same(undisturbed, tmp_path):
    tmp_path /= "a [sweep], *"
    file, directory, result = undisturbed
    chance = random.Random(0)
    args = [f"--config={file}", f"--workdir={tmp_path}", "--config.seeds=0,1,2", "--images_per_second=1000"]
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, None):
        launcher = launch(*args)
        while number and launcher.poll() is None:
            time.sleep(0.05)
            listed = jobs.read(tmp_path) if (tmp_path / "sweep.json").exists() else ()
            running = [
                jobs.directory(tmp_path, job) for job in listed if job_states.held(jobs.directory(tmp_path, job))
            ]
            if running:
                time.sleep(chance.random())
                if number == signal.SIGKILL:  # of a child, while its launcher continues
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int((running[0] / ".lock").read_text().split()[1]), number)
                    time.sleep(chance.random())
                launcher.send_signal(signal.SIGTERM)
                break
        assert launcher.wait() in ((0, 75) if number else (0,))
    same(analysis.load(tmp_path / "study"), analysis.load(directory))
    assert small.hashes(analysis.load_result(tmp_path / "study")) == small.hashes(result)


@pytest.mark.long
@pytest.mark.parametrize(("arg", "grid"), [("--config.seeds=" + ",".join(map(str, range(1000))), 1), ("", 500)])
def test_a_thousand_jobs_take_seconds(call, tmp_path, arg, grid):
    rates = ",".join(str(0.001 * (i + 1)) for i in range(grid))
    widths = "4,8" if grid > 1 else "4"
    args = [
        *(f"--config={swept.file(tmp_path)}", f"--workdir={tmp_path}/sweep", "--runs_per_job=2"),
        *([arg] if arg else ["--config.seeds=0"]),
        *(f"--config.grid=model.width={widths}", f"--config.grid={swept.RATE}={rates}"),
    ]
    start = time.process_time()
    status, out, _ = call(*args)
    spent = time.process_time() - start
    assert status == 0 and "1,000 jobs" in out
    assert len({job.name for job in jobs.read(tmp_path / "sweep")}) == 1000
    assert spent < 120  # of CPU time, most of it for compiling one or two shapes
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"][0]["bytes"] > 0
