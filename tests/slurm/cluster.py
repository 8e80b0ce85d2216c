"""Operations of the tests on the real SLURM, always by its own commands."""

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from plasticity_jax.launch import job_states, jobs
from plasticity_jax.storage import workdir

ROOT = Path(__file__).parents[2]
PLANNED = ["--images_per_second=1000", "--memory_gb=1"]  # given, as nothing here depends on measured ones
PATIENCE = 900  # seconds


def run(*command: str, status: int = 0) -> str:
    """The output of a command, which must exit as expected."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout


def launch(study: str, sweep: Path, *flags: str) -> str:
    """The output of the launcher."""
    config = f"--config=tests/slurm/study.py:{study}"
    return run(sys.executable, "-m", "launch.slurm", config, f"--workdir={sweep}", *PLANNED, *flags)


def submit(study: str, sweep: Path, *flags: str) -> str:
    """Launch a study as a user does; the id of the array."""
    told = launch(study, sweep, *flags)
    ids = re.findall(r"^submitted (\d+):", told, re.MULTILINE)
    assert len(ids) == 1, told
    return ids[0]


def undisturbed(study: str, sweep: Path) -> Path:
    """A study trained job by job in separate processes, without SLURM."""
    run(sys.executable, "-m", "launch.sweep", f"--config=tests/slurm/study.py:{study}", f"--workdir={sweep}", *PLANNED)
    for job in jobs.read(sweep):
        run(sys.executable, "-m", "launch.job", f"--workdir={sweep}", f"--job={job.name}")
    return sweep


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that must become true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.2)


def trains(sweep: Path, task: int = 0) -> bool:
    """Whether a job is in the middle of training."""
    found = state(sweep, task)
    return found.state == "running" and 0 < found.done < found.planned


def state(sweep: Path, task: int = 0) -> job_states.State:
    return job_states.look(sweep, jobs.read(sweep)[task])


def field(task: str, name: str) -> str:
    """A field of SLURM's description of a task of an array, also shortly after its end."""
    return re.search(rf"\b{name}=(\S+)", run("scontrol", "show", "job", task, "--oneliner"))[1]


def queued(array: str) -> list[str]:
    """The tasks of an array that have not ended; those that wait for minutes to begin again wait for seconds only.

    At once they must not begin: SLURM would take the new start for the old one, which it has just ended.
    """
    told = run("squeue", "--noheader", "--array", f"--jobs={array}", "--format=%i|%r")
    rows = [line.split("|") for line in told.splitlines()]
    soon = (datetime.datetime.now() + datetime.timedelta(seconds=15)).isoformat()
    for task, reason in rows:
        if reason == "BeginTime" and field(task, "EligibleTime") > soon:
            subprocess.run(["scontrol", "update", f"jobid={task}", "StartTime=now+5seconds"], check=False)
    return [task for task, _ in rows]


def ended(array: str) -> bool:
    """Whether no task of an array is in the queue."""
    done = subprocess.run(["squeue", "--noheader", f"--jobs={array}"], capture_output=True, text=True, check=False)
    return "Invalid job id" in done.stderr or not queued(array)


def output(sweep: Path, array: str, task: int = 0) -> str:
    return (sweep / "slurm" / f"{array}_{task}.log").read_text()


def processes(sweep: Path) -> list[int]:
    """The processes that train in a sweep."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"plasticity_jax.launch.job" in words and os.path.basename(words[0]).startswith(b"python"):
            pids += [int(path.parent.name)] * (f"--workdir={sweep}".encode() in words)
    return pids


def outcome(sweep: Path) -> dict:
    """Tables and parameters of all jobs, which must not depend on any disturbance."""
    by_job = {}
    for job in jobs.read(sweep):
        directory = jobs.directory(sweep, job)
        runs = workdir.read_json(directory / "result.json")["runs"]
        tables = {str(path.relative_to(sweep)): path.read_bytes() for path in directory.rglob("metrics.jsonl")}
        assert tables
        by_job[job.name] = (runs, tables)
    return by_job
