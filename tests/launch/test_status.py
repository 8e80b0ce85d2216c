"""The status of a sweep from its files alone: whatever is missing, damaged or lost has a state."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plasticity_jax.launch import attempts, job_states, jobs, planner, status
from plasticity_jax.launch.attempts import Attempts
from plasticity_jax.storage import workdir
from tests.support import commands, swept
from tests.support.commands import refused

ROOT = Path(__file__).parents[2]
RUNNING = dict(status="running", exit_code=None, images=50, images_planned=200, images_per_second=10.0, seconds_left=15)


@pytest.fixture
def sweep(tmp_path):
    """Four jobs of one seed each, with 100 planned images each."""
    swept.planned(tmp_path, swept.config(seeds=(0, 1, 2, 3)), planner.Budget(runs=1))
    return tmp_path


def write(sweep: Path, seed: int, file: str, **content) -> Path:
    workdir.write_json(sweep / f"study/jobs/seeds={seed}" / file, content)
    return sweep / f"study/jobs/seeds={seed}"


def finish(sweep: Path, seed: int, lost: int = 0, state: str = "finished") -> None:
    runs = [{"status": "failed"}] * lost + [{"status": "finished"}] * (2 - lost)
    write(sweep, seed, "result.json", status=state, runs=runs, images=100)


def shown(sweep: Path) -> list[str]:
    return [state.state for state in status.look(sweep).values()]


def call(sweep: Path, *args: str, capsys) -> tuple[int, str]:
    code = status.main([str(sweep), *args])
    return code, capsys.readouterr().out


def test_every_state(sweep, capsys):
    assert shown(sweep) == ["waiting"] * 4
    assert call(sweep, capsys=capsys)[0] == 75
    with workdir.lock(sweep / "study/jobs/seeds=0"):
        write(sweep, 0, "status.json", **RUNNING)
        write(sweep, 1, "status.json", **RUNNING)
        write(sweep, 2, "status.json", **RUNNING | {"status": "preempted"})
        finish(sweep, 3, lost=1)
        assert shown(sweep) == ["running", "lost", "stopped", "finished"]
        code, out = call(sweep, capsys=capsys)
        assert code == 75
        rows = out.splitlines()
        assert rows[1].split()[:8] == ["seeds=0", "running", "1", "25", "%", "10", "15", "s"]
        assert "lost" in rows[2] and "its process was killed" in rows[2]
        assert "stopped" in rows[3] and "1 run diverged" in rows[4]
        assert "4 jobs: 1 running, 1 stopped, 1 lost, 1 finished; 35.7 % of 700 images; 10 images/s" in out
        assert "2 jobs to run; the failed ones get new tries:" in out
        assert f"  plasticity local --workdir={sweep}" in out
    assert shown(sweep)[0] == "lost"


def test_failures_and_their_reasons(sweep, capsys):
    finish(sweep, 0)
    directory = write(sweep, 1, "status.json", **RUNNING | {"status": "failed", "error": "the disk is full"})
    assert (call(sweep, capsys=capsys)[0], shown(sweep)[1]) == (1, "failed")
    attempts.write(directory, Attempts("the start", 3, ("x", "the disk is full"), True))
    finish(sweep, 2, lost=2, state="failed")
    write(sweep, 3, "attempts.json", place="the start", tries=1, errors=["no data"], gave_up=True)
    assert shown(sweep) == ["finished", "gave up", "diverged", "gave up"]
    code, out = call(sweep, capsys=capsys)
    assert code == 1 and "the disk is full" in out and "no data" in out and "2 runs diverged" in out
    assert "all runs diverged" in out and f"{sweep}/study/jobs/seeds=2" in out


def test_all_finished(sweep, capsys):
    for seed in range(4):
        finish(sweep, seed)
    code, out = call(sweep, capsys=capsys)
    assert code == 0 and "4 jobs: 4 finished; 100.0 % of 400 images" in out and "to run" not in out


def test_for_programs(sweep, capsys):
    finish(sweep, 0)
    code, out = call(sweep, "--json", capsys=capsys)
    report = json.loads(out)
    assert (code, report["exit_status"], report["counts"]) == (75, 75, {"finished": 1, "waiting": 3})
    assert [(each["name"], each["state"], each["seeds"]) for each in report["jobs"]] == [
        (f"seeds={seed}", "waiting" if seed else "finished", [seed]) for seed in range(4)
    ]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "\x00", '{"status": 3}', '{"status": "running", "images": "x"}']
)
@pytest.mark.parametrize("file", ["status.json", "result.json", "attempts.json"])
def test_damaged_files_are_a_state(sweep, file, content, capsys):
    directory = sweep / "study/jobs/seeds=0"
    directory.mkdir(parents=True)
    (directory / file).write_text(content)
    code, out = call(sweep, capsys=capsys)
    assert code == 75
    expected = "waiting" if file == "attempts.json" else "lost"
    assert shown(sweep) == [expected] + ["waiting"] * 3
    assert "--json" not in out


def test_odd_numbers_do_no_harm(sweep, capsys):
    odd = dict(images=-1, images_planned=1e999, images_per_second=True, seconds_left="soon")
    with workdir.lock(sweep / "study/jobs/seeds=0"):
        write(sweep, 0, "status.json", **{**RUNNING, **odd})
        (state, *_) = status.look(sweep).values()
        assert (state.state, state.done, state.planned, state.rate, state.left) == ("running", 0, 100, 0.0, 0.0)
        assert call(sweep, capsys=capsys)[0] == 75


def test_looking_does_not_keep_a_job_from_its_lock(sweep):
    directory = sweep / "study/jobs/seeds=0"
    directory.mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from plasticity_jax.launch import job_states\n"
        "while not Path(sys.argv[1] + '/stop').exists(): job_states.held(Path(sys.argv[1]))"
    )
    with workdir.lock(directory):
        pass
    looking = subprocess.Popen([sys.executable, "-c", code, str(directory)], cwd=ROOT)
    try:
        for _ in range(200):
            with workdir.lock(directory):
                pass
    finally:
        (directory / "stop").touch()
        assert looking.wait() == 0


def test_a_thousand_jobs(tmp_path, capsys):
    """Takes about 0.25 s of CPU time; the bound leaves room for slow machines."""
    swept.planned(tmp_path, swept.config(seeds=tuple(range(1000))), planner.Budget(runs=1))
    for seed in range(0, 1000, 2):
        finish(tmp_path, seed)
    write(tmp_path, 1, "status.json", **RUNNING | {"status": "failed", "error": "broken"})
    start = time.process_time()
    code, out = call(tmp_path, capsys=capsys)
    assert time.process_time() - start < 5
    lines = out.splitlines()
    assert code == 1 and len(lines) < 80
    assert lines[1].startswith("seeds=1 ") and "broken" in lines[1]  # jobs that need attention come first
    assert "... 940 more jobs" in out and "1,000 jobs: 499 waiting, 1 failed, 500 finished" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [(["nowhere"], "nowhere holds no sweep"), ([], "sweep"), (["a", "b"], "b"), (["a", "--jsn"], "--jsn")],
)
def test_mistakes_take_one_line(args, message, capsys):
    refused(commands.call(status.main, *args, capture=capsys), message)


def test_states_are_ordered_by_urgency():
    assert sorted(job_states.URGENCY) == sorted(job_states.STATES)
    assert set(job_states.FAILURES) < set(job_states.STATES) and jobs.PACK == "main"
