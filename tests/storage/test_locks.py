"""Locks, also on file systems without locks."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from plasticity_jax.errors import BusyError, WorkdirError
from plasticity_jax.launch import planner, status
from plasticity_jax.storage import locks, workdir
from tests.support import swept

HERE = socket.gethostname()


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS], ids=os.strerror)
def unlockable(request, monkeypatch):
    """A file system without locks."""

    def flock(file, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_disk_without_locks_is_refused_with_the_way_in(unlockable, tmp_path):
    with pytest.raises(WorkdirError, match=f"cannot lock workdir .*, or set {locks.WITHOUT}=1 and make sure") as error:
        with workdir.lock(tmp_path):
            pass
    assert "\n" not in str(error.value)


def test_who_asks_for_it_goes_without_and_hears_what_that_gives_up(unlockable, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(locks.WITHOUT, "1")
    assert not locks.held(tmp_path / ".lock")
    with workdir.lock(tmp_path):
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "nothing prevents processes of two machines from using it at once" in said
        assert locks.held(tmp_path / ".lock")
        with pytest.raises(BusyError, match=f"in use by process {os.getpid()} on {HERE}"), workdir.lock(tmp_path):
            pass
    assert not locks.held(tmp_path / ".lock")
    with workdir.lock(tmp_path):
        pass


def test_a_holder_that_was_killed_holds_nothing(unlockable, tmp_path, monkeypatch):
    monkeypatch.setenv(locks.WITHOUT, "1")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for text in (
        f"process {dead.pid} on {HERE}",
        f"process {os.getpid()} on another machine",
        "process -1",
        "\xff",
        "",
    ):
        (tmp_path / ".lock").write_text(text)
        assert not locks.held(tmp_path / ".lock")
        with workdir.lock(tmp_path):
            pass


def test_a_lock_is_lost_if_its_file_is_deleted_or_names_another_process(tmp_path):
    with workdir.lock(tmp_path):
        workdir.check_lock(tmp_path)
        (tmp_path / ".lock").write_text("process 1 on another machine\n")
        with pytest.raises(WorkdirError, match="replaced"):
            workdir.check_lock(tmp_path)
        (tmp_path / ".lock").unlink()
        with pytest.raises(WorkdirError, match="deleted"):
            workdir.check_lock(tmp_path)


def test_other_errors_of_a_lock_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(locks.WITHOUT, "1")

    def flock(file, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(WorkdirError, match="Input/output error"), workdir.lock(tmp_path):
        pass


def test_where_there_are_locks_they_are_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(locks.WITHOUT, "1")
    with workdir.lock(tmp_path):
        (tmp_path / ".lock").write_text("process 1 on another machine")
        with pytest.raises(BusyError), workdir.lock(tmp_path):
            pass
    assert not capsys.readouterr().err


def test_jobs_of_a_sweep_are_told_apart_without_locks(unlockable, tmp_path, monkeypatch):
    monkeypatch.setenv(locks.WITHOUT, "1")
    swept.planned(tmp_path, swept.config(seeds=(0, 1)), planner.Budget(runs=1))
    directories = [tmp_path / f"study/jobs/seeds={seed}" for seed in (0, 1)]
    for directory in directories:
        workdir.write_json(directory / "status.json", {"status": "running"})
    with workdir.lock(directories[0]):
        assert [state.state for state in status.look(tmp_path).values()] == ["running", "lost"]
