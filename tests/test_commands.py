"""Each command starts in its own process, and answers a mistake with one line before jax is loaded."""

import os
import subprocess
import sys

import pytest

from plasticity_jax.launch import sweep
from tests.support.commands import ROOT, Done, call, refused

MISTAKES = {
    "plasticity_jax.main": (["--config=configs/multistage.py", "--wrkdir=x"], "'wrkdir'"),
    "launch.sweep": (["--config=configs/multistage.py", "--runs_per_jobs=1"], "'runs_per_jobs'"),
    "launch.slurm": (["--config=configs/multistage.py", "--workdir=nowhere"], "no SLURM here"),
    "launch.local": (["--workdir=nowhere"], "nowhere holds no sweep"),
    "launch.job": (["--workdir=nowhere", "--job=0"], "nowhere holds no sweep"),
    "launch.status": (["nowhere"], "nowhere holds no sweep"),
    "analysis.claims": (["nowhere"], "nowhere"),
    "analysis.collect": (["nowhere", "--out=elsewhere"], "nowhere"),
    "analysis.figures": (["nowhere", "--out=elsewhere"], "nowhere"),
    "analysis.report": (["nowhere", "--out=elsewhere"], "nowhere"),
}


BY_DAY = ("plasticity_jax.main", "launch.job", "analysis.report")  # which import most of what the others do


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=() if name in BY_DAY else pytest.mark.long) for name in MISTAKES]
)
def test_it_starts_and_answers_a_mistake_before_jax_is_loaded(command, tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')")
    args, message = MISTAKES[command]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    call = [sys.executable, "-m", command, *args]
    done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr and "jax was imported" not in done.stderr


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_flags_do_not_outlive_a_call(capsys):
    """Otherwise a test could pass, or fail, because of the flags of another."""
    first = call(sweep.main, "--config=configs/multistage.py:small", "--dry_run", "--hours=0", capture=capsys)
    refused(first, "--hours=0.0: must be above 0")
    second = call(
        sweep.main, "--config=configs/multistage.py:small", "--images_per_second=0", "--dry_run", capture=capsys
    )
    refused(second, "--images_per_second=0.0: must be above 0")  # checked after --hours
    assert call(sweep.main, capture=capsys) == Done(1, "", "error: --config is missing\n")
