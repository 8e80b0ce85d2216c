"""Child processes and their jobs: in parallel, restarted, stopped, excluded; here they only pretend to train."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plasticity_jax.launch import attempts, job_states, jobs, local, planner, workers
from plasticity_jax.storage import workdir
from tests.support import commands, swept

ROOT = Path(__file__).parents[2]

# Stands in for launch/job.py.  SWEEP/script.json says what each job does at each start; the last entry is repeated.
FAKE = """
import fcntl, json, os, signal, sys, time
from pathlib import Path

sweep, name = Path(sys.argv[1].partition("=")[2]), sys.argv[2].partition("=")[2]
directory = sweep / "study" / "jobs" / name
lock = open(directory / ".lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(75)
with open(sweep / "starts.txt", "a") as file:
    cores = sorted(os.sched_getaffinity(0))
    file.write(json.dumps([name, cores, os.environ.get("CUDA_VISIBLE_DEVICES"), sys.argv[3]]) + "\\n")
count = sum(json.loads(line)[0] == name for line in open(sweep / "starts.txt"))
script = json.loads((sweep / "script.json").read_text()).get(name, ["finish"])
what = script[min(count, len(script)) - 1]
if what == "finish":
    (directory / "result.json").write_text(json.dumps({"status": "finished", "runs": [], "images": 100}))
elif what == "fail":
    (directory / "status.json").write_text(json.dumps({"status": "failed", "error": "it broke"}))
    sys.exit(1)
elif what == "again":
    sys.exit(75)
elif what == "step":
    (directory / f"main/tune/checkpoints/{count}").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (Path(directory / "saved").touch(), os._exit(75)))
    (directory / "ready").touch()
    while True:
        time.sleep(0.05)
print("the log of", name)
"""

# A launcher whose children run the stand-in.
LAUNCH = """
import os, sys
from pathlib import Path
from plasticity_jax.launch import local, workers

workers.TICK = 0.01
sweep = Path(sys.argv[1])
local.environment = lambda: {**os.environ, "PYTHONPATH": str(sweep.parent), "PYTHONSAFEPATH": "1"}
sys.exit(local.run(sweep, 2, 3))
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Six jobs, and a script of what they do; they end at once, so their launcher polls often."""
    monkeypatch.setattr(workers, "TICK", 0.01)
    monkeypatch.setattr(workers, "LOOK", 0.05)
    swept.planned(tmp_path / "sweep", swept.config(seeds=tuple(range(6))), planner.Budget(runs=1))
    standing_in = tmp_path / "plasticity_jax/launch/job.py"
    standing_in.parent.mkdir(parents=True)
    for folder in standing_in.parents[:2]:
        (folder / "__init__.py").touch()
    standing_in.write_text(FAKE)
    return tmp_path / "sweep"


def run(sweep: Path, parallel: int = 2, stopped: Callable[[], bool] = lambda: False, **script) -> int:
    """The exit status of the launcher; `j3=[..]` is the script of the job of seed 3."""
    written = {f"seeds={key[1:]}": what for key, what in script.items()}
    (sweep / "script.json").write_text(json.dumps(written))
    environment = {**os.environ, "PYTHONPATH": str(sweep.parent), "PYTHONSAFEPATH": "1"}
    return workers.Crew(sweep, jobs.read(sweep), parallel, 3, environment).work(stopped)


def starts(sweep: Path) -> list:
    return [json.loads(line) for line in (sweep / "starts.txt").read_text().splitlines()]


def names(sweep: Path) -> list[str]:
    return [start[0] for start in starts(sweep)]


def all_states(sweep: Path) -> list[str]:
    return [job_states.look(sweep, job).state for job in jobs.read(sweep)]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_jobs_run_once_and_write_their_logs(sweep, capsys):
    assert run(sweep) == 0
    assert sorted(names(sweep)) == [f"seeds={seed}" for seed in range(6)]
    assert {start[3] for start in starts(sweep)} == {"--tries=3"}
    for job in jobs.read(sweep):
        assert (jobs.directory(sweep, job) / "log.txt").read_text() == f"the log of {job.name}\n"
    assert "6 of 6 jobs finished" in capsys.readouterr().err
    assert run(sweep) == 0 and len(starts(sweep)) == 6  # nothing is missing


def test_one_that_fails_does_not_take_the_others_down(sweep, capsys):
    assert run(sweep, j1=["fail"]) == 1
    assert all_states(sweep) == ["finished", "failed", *["finished"] * 4]
    assert "seeds=1 failed: it broke; see " in capsys.readouterr().err
    assert run(sweep, j1=["fail", "finish"]) == 0  # a new launch runs only what is missing
    assert names(sweep).count("seeds=1") == 2 and len(starts(sweep)) == 7


def test_what_asks_to_be_started_again_is(sweep):
    assert run(sweep, j0=["again", "again", "again", "again", "finish"]) == 0
    assert names(sweep).count("seeds=0") == 5


def test_what_is_killed_goes_on_as_long_as_it_comes_further(sweep, capsys):
    assert run(sweep, j0=["step", "step", "step", "step", "finish"], j1=["kill", "kill", "finish"], j2=["kill"]) == 1
    assert [names(sweep).count(f"seeds={seed}") for seed in range(4)] == [5, 3, 3, 1]
    err = capsys.readouterr().err
    assert "seeds=2 failed: killed by SIGKILL 3 times at one place" in err and "seeds=0 failed" not in err


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_no_more_run_at_a_time_than_were_asked_for(sweep, parallel):
    ready = [sweep / f"study/jobs/seeds={seed}/ready" for seed in range(6)]
    counts = []

    def stopped() -> bool:
        counts.append(sum(path.exists() for path in ready))
        return counts[-1] == parallel

    assert run(sweep, parallel, stopped, **{f"j{seed}": ["wait"] for seed in range(6)}) == 75
    assert max(counts) == parallel == len(starts(sweep))
    assert sum((path.parent / "saved").exists() for path in ready) == parallel  # each was asked to stop, and saved


def test_a_job_of_another_launcher_is_waited_for(sweep):
    directory = sweep / "study/jobs/seeds=0"
    done = []

    def elsewhere() -> None:
        with workdir.lock(directory):
            wait_for(lambda: all_states(sweep)[1:] == ["finished"] * 5)
            workdir.write_json(directory / "result.json", {"status": "finished", "runs": [], "images": 1})
            done.append(time.monotonic())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    wait_for(lambda: job_states.held(directory))
    assert run(sweep, 1) == 0
    assert done and "seeds=0" not in names(sweep)
    thread.join()


def test_a_job_that_another_launcher_left_is_taken_over(sweep):
    before, directory = [], sweep / "study/jobs/seeds=0"

    def elsewhere() -> None:
        with workdir.lock(directory):
            wait_for(lambda: all_states(sweep)[1:] == ["finished"] * 5)
            before.extend(names(sweep) + [path.name for path in directory.glob("log.txt")])  # none: not attempted

    thread = threading.Thread(target=elsewhere)
    thread.start()
    wait_for(lambda: job_states.held(directory))
    assert run(sweep) == 0
    thread.join()
    assert len(before) == 5 and names(sweep) == [*before, "seeds=0"]


def test_two_launchers_share_a_sweep(sweep):
    (sweep / "starts.txt").touch()
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(run(sweep, 2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]
    assert sorted(set(names(sweep))) == [f"seeds={seed}" for seed in range(6)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_stops_all(number, sweep):
    (sweep / "script.json").write_text(json.dumps({f"seeds={seed}": ["wait"] for seed in range(6)}))
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(sweep)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    ready = [sweep / f"study/jobs/seeds={seed}/ready" for seed in range(2)]
    wait_for(lambda: all(path.exists() for path in ready))
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "stopping: 2 jobs save their state" in err
    assert all((path.parent / "saved").exists() for path in ready)


def test_a_new_launch_gives_new_tries(sweep, monkeypatch):
    directory = sweep / "study/jobs/seeds=0"
    attempts.write(directory, attempts.Attempts("the start", 3, ("x",), True))
    monkeypatch.setattr(workers.Crew, "work", lambda self, stopped: len(self.waiting))
    assert local.run(sweep, 1, 3) == 6
    assert attempts.read(directory) == attempts.Attempts()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_shares_of_the_cores(sweep, monkeypatch):
    cores = set(range(8))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert [share.cores for share in workers.deal(3)] == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert [share.cores for share in workers.deal(1)] == [()]
    assert [share.cores for share in workers.deal(9)][-2:] == [(7,), (0,)]
    monkeypatch.undo()
    allowed = sorted(os.sched_getaffinity(0))
    assert run(sweep, 2) == 0
    assert (
        {tuple(start[1]) for start in starts(sweep)} == {share.cores for share in workers.deal(2)} != {tuple(allowed)}
    )


def test_gpus_are_dealt_out(sweep, monkeypatch, tmp_path):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: name == "jax_cuda13_plugin")
    monkeypatch.setattr(workers, "DEV", tmp_path)
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()
    assert workers.gpus({}) == ["0", "1", "2", "10"]
    assert workers.gpus({"CUDA_VISIBLE_DEVICES": "3,1"}) == ["3", "1"]
    for none in ("", "-1", "NoDevFiles", "none", " -1 ,0"):
        assert workers.gpus({"CUDA_VISIBLE_DEVICES": none}) == []
    assert workers.gpus({"CUDA_VISIBLE_DEVICES": "1, GPU-8a,MIG-7f,-1,0"}) == ["1", "GPU-8a", "MIG-7f"]
    assert workers.gpus({"JAX_PLATFORMS": "cpu"}) == []
    assert workers.gpus({"JAX_PLATFORMS": "cuda,cpu"}) == ["0", "1", "2", "10"]
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert run(sweep, 3) == 0
    assert {start[2] for start in starts(sweep)} == {"5", "7"}
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    assert workers.gpus({}) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--parallel=0", "--workdir=x"], "'0' is not an integer above 0"),
        (["--workdir=x"], "x holds no sweep"),
        (["--workdir=x", "--hours=3"], "--hours=3: only for planning, which needs --config"),
        # Errors of the child that plans.
        (["--config=configs/multistage.py:digits"], "--workdir is missing"),
        (["--config=configs/multistage.py:digits", "--workdir=x", "--paralel=2"], "paralel"),
        (["--dry_run"], "--config is missing"),
    ],
)
def test_mistakes_take_one_line(args, message, capfd):
    commands.refused(commands.call(local.main, *args, capture=capfd), message)


def test_a_signal_stops_the_planning_too(tmp_path):
    """While a slow config file is loaded."""
    (tmp_path / "config.py").write_text(f"open({str(tmp_path / 'there')!r}, 'w')\nimport time; time.sleep(600)")

    def stop() -> None:
        wait_for((tmp_path / "there").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert local.main([f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/sweep"]) == 75
    thread.join()
    assert not (tmp_path / "sweep").exists()
