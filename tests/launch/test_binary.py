"""The script around a job restarts it until it has finished, passes signals on, and keeps its output."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.launch import binary

HOSTILE = ["a b", "'", '"', "$(touch x)", "`touch x`", "; touch x", "#", "%s", "\n", "é", "-", "!", "*", "~", "\\", "&"]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(binary, "PAUSE", 0)
    (tmp_path / "sweep" / "xm").mkdir(parents=True)
    return tmp_path / "sweep"


def start(sweep: Path, text: str, name: str = "j") -> subprocess.Popen:
    """Start the script with a job that is a piece of Python."""
    program, path = sweep / "python", sweep / "xm" / "job.sh"
    begin = f"#!{sys.executable}\nimport sys, time, signal, pathlib\nhere = pathlib.Path({str(sweep)!r})\n"
    program.write_text(begin + text)
    path.write_text(binary.script(sweep, 3, str(program), sweep))
    for executable in (program, path):
        executable.chmod(0o755)
    return subprocess.Popen([path, f"--job={name}"])


def log(sweep: Path, name: str = "j") -> str:
    return (sweep / "xm" / f"{name}.log").read_text()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_job_that_has_an_end_is_started_once_and_fails_nobody_else(sweep, code):
    assert start(sweep, f"print('hi', file=sys.stderr); sys.exit({code})").wait(60) == 0
    assert log(sweep) == "hi\n"


def test_a_job_that_asks_for_it_is_started_again(sweep):
    text = "there = (here / 'x').exists(); (here / 'x').touch(); print(there); sys.exit(75 * (not there))"
    assert start(sweep, text).wait(60) == 0
    assert log(sweep) == "False\nTrue\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_job_which_may_save_and_is_not_started_again(number, sweep):
    text = """
def save(*args):
    time.sleep(0.3); print('saved', flush=True); sys.exit(75)
signal.signal(signal.SIGTERM, save); (here / 'ready').touch(); time.sleep(60)"""
    child = start(sweep, text)
    while not (sweep / "ready").exists():
        assert child.poll() is None
    child.send_signal(number)
    assert child.wait(30) == 0
    assert log(sweep) == "saved\n"


def test_sigterm_between_two_starts_ends_it(sweep, monkeypatch):
    monkeypatch.setattr(binary, "PAUSE", 1)
    child = start(sweep, "(here / 'ready').touch(); print('once'); sys.exit(75)")
    while not (sweep / "ready").exists():
        assert child.poll() is None
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
    assert log(sweep).count("once") <= 2


def test_a_line_pauses_before_each_start_but_the_first_and_ends_as_the_last_did(tmp_path):
    commands = {"sleep": "echo paused $1", "job": 'echo "$@"; [ -e again ] && exit 1; touch again; exit 75'}
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    call = ["sh", "-c", binary.line("job --fixed"), "sh", "--job=a b"]
    done = subprocess.run(call, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["--fixed --job=a b", f"paused {binary.PAUSE}", "--fixed --job=a b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_places_and_names_stay_what_they_are(name, tmp_path, monkeypatch):
    sweep = tmp_path / name
    (sweep / "xm").mkdir(parents=True)
    assert start(sweep, "import os; print(ascii([os.getcwd(), *sys.argv[1:]]))", name).wait(60) == 0
    where = ["-m", "plasticity_jax.launch.job", f"--workdir={sweep}", "--tries=3", f"--job={name}"]
    assert log(sweep, name) == ascii([str(sweep), *where]) + "\n"
    assert not list(tmp_path.rglob("x"))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1))
def test_any_place_is_one_word_to_the_shell(name):
    text = binary.script(Path(f"/s/{name}"), 3, name, Path("/"))
    words = shlex.split(text.partition("; do\n    ")[2].partition("&\n    child")[0])
    assert f"--workdir={Path(f'/s/{name}')}" in words
    assert words[0] == name
