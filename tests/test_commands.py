"""Each command starts as a process of its own, and answers a mistake in one line before jax is loaded."""

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


ALL = """
import os, runpy, sys
import ml_collections, numpy, pandas
for command, args in eval(sys.argv[1]).items():
    child = os.fork()
    if not child:
        sys.argv = [command, *args]
        runpy.run_module(command, run_name="__main__", alter_sys=True)
        sys.exit()
    print(command, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""


def started(call, tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    return subprocess.run([sys.executable, *call], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
def test_mistakes_are_answered_before_jax_is_loaded(tmp_path):
    """In forks of one process, which has what most of them import."""
    done = started(
        ["-c", ALL, repr({name: args for name, (args, _) in MISTAKES.items()})],
        tmp_path,
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == [f"{command} 1" for command in MISTAKES], done.stderr
    for line, (_, message) in zip(lines[::2], MISTAKES.values(), strict=True):
        assert message in line


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=() if name == "analysis.claims" else pytest.mark.long) for name in MISTAKES]
)
def test_it_starts_and_answers_a_mistake_before_jax_is_loaded(command, tmp_path):
    args, message = MISTAKES[command]
    done = started(["-m", command, *args], tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr and "jax was imported" not in done.stderr


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_flags_do_not_outlive_a_call(capsys):
    """Or a test could pass, or fail, by the flags of another."""
    first = call(sweep.main, "--config=configs/multistage.py:small", "--dry_run", "--hours=0", capture=capsys)
    refused(first, "--hours=0.0: must be above 0")
    second = call(
        sweep.main, "--config=configs/multistage.py:small", "--images_per_second=0", "--dry_run", capture=capsys
    )
    refused(second, "--images_per_second=0.0: must be above 0")  # looked at behind --hours
    assert call(sweep.main, capture=capsys) == Done(1, "", "error: --config is missing\n")
