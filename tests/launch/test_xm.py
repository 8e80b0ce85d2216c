"""A sweep through XManager's local executor, with a job that fails; skipped where XManager is not installed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plasticity_jax.launch import job_states, jobs

pytest.importorskip("xmanager", reason='XManager is not installed (pip install -e ".[xmanager]")', exc_type=ImportError)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def planned(sweep: Path) -> list[str]:
    return ["--config=tests/slurm/study.py:short", f"--workdir={sweep}", "--images_per_second=1000", "--memory_gb=1"]


def launch(sweep: Path, home: Path, *flags: str) -> tuple[int, str, int]:
    """Status, output, and the maximal number of jobs that ran at once."""
    command = [sys.executable, "-m", "xmanager.cli.cli", "launch", "launch/xm.py", "--", *planned(sweep), *flags]
    home.mkdir(exist_ok=True)
    with open(home / "log.txt", "w") as log:
        child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "HOME": str(home)}, stdout=log, stderr=log)
        most = 0
        while child.poll() is None:
            listed = jobs.read(sweep) if (sweep / "sweep.json").exists() else ()
            most = max(most, sum(job_states.held(jobs.directory(sweep, job)) for job in listed))
            time.sleep(0.02)
    return child.returncode, (home / "log.txt").read_text(), most


def test_a_failing_job_fails_alone_and_a_second_launch_mends_it(tmp_path):
    sweep, home = tmp_path / "a $weep", tmp_path / "home"
    subprocess.run([sys.executable, "-m", "launch.sweep", *planned(sweep)], cwd=ROOT, check=True)
    listed = jobs.read(sweep)
    broken = jobs.directory(sweep, listed[1])
    broken.mkdir(parents=True)
    (broken / "main").write_text("where a directory should be")
    code, told, most = launch(sweep, home, "--parallel=2", "--tries=1")
    assert code == 1, told
    assert f"{listed[1].name}: gave up" in told
    assert [job_states.look(sweep, job).state for job in listed] == ["finished", "gave up", "finished", "finished"]
    assert 1 <= most <= 2
    (broken / "main").unlink()
    code, told, most = launch(sweep, home)
    assert code == 0, told
    assert most == 1
    assert job_states.look(sweep, listed[1]).state == "finished"


def test_a_mistake_is_one_line(tmp_path):
    source = "from plasticity_jax.configs import base\n\n\ndef get_config():\n    return base.base()\n"
    (tmp_path / "config.py").write_text(source)
    flags = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/sweep"]
    command = [sys.executable, "-m", "xmanager.cli.cli", "launch", "launch/xm.py", "--", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
