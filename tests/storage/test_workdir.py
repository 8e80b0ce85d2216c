"""A working directory has one owner, one config, and no half-written file."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from plasticity_jax.config import legacy
from plasticity_jax.errors import WorkdirError
from plasticity_jax.storage import workdir
from tests.support.disks import disk_of

CONFIG = {"dataset": "digits", "data_dir": "a", "model": {"depth": 2, "widths": (8, 16)}, "extra": {}, "seeds": [0, 1]}

HOLD = """
import sys
from plasticity_jax.storage import workdir
with workdir.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def refused(match):
    with pytest.raises(WorkdirError, match=match) as error:
        yield
    assert "\n" not in str(error.value)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    directory = tmp_path / "new" / "dir"
    command = [sys.executable, "-c", HOLD, str(directory)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        with refused(rf"in use by process {holder.pid} on .*another workdir"), workdir.lock(directory):
            pytest.fail("two processes hold one workdir")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with workdir.lock(directory):
        assert f"process {os.getpid()} " in (directory / ".lock").read_text()


def test_the_lock_is_let_go_of(tmp_path):
    (tmp_path / ".lock").write_text("process 123456789 on a machine with a name that is very long " * 9)
    for _ in range(2):
        with pytest.raises(KeyError), workdir.lock(tmp_path):
            with refused(f"in use by process {os.getpid()} on [^ ]*;"), workdir.lock(tmp_path):
                pass
            raise KeyError


def test_a_workdir_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with refused("cannot make directory .*use another workdir"), workdir.lock(path):
            pass
        with refused("cannot make directory .*use another workdir"):
            workdir.claim(path, CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workdir_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with refused("cannot write workdir"), workdir.lock(tmp_path):
        pass
    with refused("cannot write .*config.json"):
        workdir.claim(tmp_path, CONFIG)


def test_a_lock_file_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with refused(r"\.lock is a directory instead of a file: delete it"), workdir.lock(tmp_path):
        pass


def test_json_round_trips_and_replaces(tmp_path):
    path = tmp_path / "new" / "a.json"
    for obj in ({"x": [1, None, "\u00fc"], "half": 0.5}, [True]):
        workdir.write_json(path, obj)
        assert workdir.read_json(path) == obj
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    workdir.write_json(path, {"old": 1})
    with disk_of(100), refused("cannot write .*a.json: "):
        workdir.write_json(path, {"new": "x" * 1000})
    assert workdir.read_json(path) == {"old": 1}
    with pytest.raises(TypeError):
        workdir.write_json(path, {"new": object()})
    assert workdir.read_json(path) == {"old": 1}


def test_json_that_cannot_be_read_is_one_line(tmp_path):
    with refused("cannot read .*a.json: No such file"):
        workdir.read_json(tmp_path / "a.json")
    for damage in (b"", b'{"a": ', b"\xff\xfe"):
        (tmp_path / "a.json").write_bytes(damage)
        with refused("a.json is damaged"):
            workdir.read_json(tmp_path / "a.json")


def test_the_same_config_may_come_again(tmp_path):
    directory = tmp_path / "new"
    workdir.claim(directory, CONFIG)
    assert workdir.read_json(directory / "config.json") == json.loads(json.dumps(CONFIG))
    workdir.claim(directory, CONFIG)
    workdir.claim(directory, {**CONFIG, "data_dir": "b", "checkpoint_seconds": 5.0})
    assert workdir.read_json(directory / "config.json")["data_dir"] == "a"


def test_a_directory_of_an_earlier_version_belongs_to_its_config_still(tmp_path):
    study = {"packs": [{"name": "main", "plans": [[[], [{"name": "train", "augment": True}]]]}]}
    (tmp_path / "config.json").write_text(json.dumps(study))
    study |= legacy.ADDED  # keys that later versions have too
    stage = study["packs"][0]["plans"][0][1][0]
    stage |= legacy.ADDED_TO_STAGES | {"augment": "crop_flip"}
    workdir.claim(tmp_path, study)
    stage["augment"] = "crop"
    with pytest.raises(WorkdirError, match='augment: "crop_flip" -> "crop"'):
        workdir.claim(tmp_path, study)


def test_not_a_number_is_the_same_as_itself(tmp_path):
    workdir.claim(tmp_path, {"x": float("nan")})
    workdir.claim(tmp_path, {"x": float("nan")})


def test_another_config_is_told_apart_key_by_key(tmp_path):
    workdir.claim(tmp_path, CONFIG)
    other = {**CONFIG, "model": {"depth": 3, "name": "mlp"}, "extra": 1, "data_dir": "b"}
    with pytest.raises(WorkdirError) as error:
        workdir.claim(tmp_path, other)
    head, *lines = str(error.value).splitlines()
    assert f"workdir {tmp_path} belongs to another config; use another workdir" in head
    assert lines == [
        "  model.depth: 2 -> 3",
        "  model.widths: [8, 16] -> (absent)",
        "  extra: {} -> 1",
        '  model.name: (absent) -> "mlp"',
    ]
    assert workdir.read_json(tmp_path / "config.json")["extra"] == {}


def test_who_asks_for_more_seeds_is_told_how_to_add_them(tmp_path):
    workdir.claim(tmp_path, {"seeds": [0], "width": 8})
    with pytest.raises(WorkdirError, match=f"to add seeds, use plasticity local with --begun={tmp_path} and another"):
        workdir.claim(tmp_path, {"seeds": [0, 1], "width": 8})
    with pytest.raises(WorkdirError) as error:
        workdir.claim(tmp_path, {"seeds": [0, 1], "width": 16})
    assert "--begun" not in str(error.value)


@pytest.mark.parametrize("count", [8, 9, 30])
def test_many_differences_are_cut_short(tmp_path, count):
    workdir.claim(tmp_path, {f"k{i}": 0 for i in range(40)})
    with pytest.raises(WorkdirError) as error:
        workdir.claim(tmp_path, {f"k{i}": int(i < count) for i in range(40)})
    lines = str(error.value).splitlines()[1:]
    assert lines[:8] == [f"  k{i}: 0 -> 1" for i in range(8)]
    assert lines[8:] == ([f"  and {count - 8} more"] if count > 8 else [])


def test_a_damaged_config_is_one_line(tmp_path):
    for damage in ('{"dataset"', "[]", ""):
        (tmp_path / "config.json").write_text(damage)
        with refused("config.json is damaged .*another workdir"):
            workdir.claim(tmp_path, CONFIG)


def test_status_tells_who_and_when(tmp_path):
    workdir.status(tmp_path, status="running", stage="tune")
    workdir.status(tmp_path, status="finished", exit_code=0)
    status = workdir.read_json(tmp_path / "status.json")
    assert status.pop("time").endswith("+00:00")
    assert status == {"status": "finished", "exit_code": 0, "pid": os.getpid()}


def test_environment_is_what_runs(monkeypatch):
    import jax
    import numpy

    flags = "--xla_force_host_platform_device_count=1"
    monkeypatch.setenv("XLA_FLAGS", flags)
    environment = workdir.environment()
    assert json.loads(json.dumps(environment)) == environment
    assert environment["packages"]["jax"] == jax.__version__ and environment["packages"]["numpy"] == numpy.__version__
    assert set(environment["packages"]) == set(workdir.PACKAGES) and all(environment["packages"].values())
    assert (environment["backend"], environment["devices"]) == (jax.default_backend(), jax.device_count())
    assert environment["device_kind"] == jax.devices()[0].device_kind
    assert environment["python"] == sys.version.split()[0]
    assert 1 <= environment["cpu_threads"] <= os.cpu_count()
    assert environment["xla_flags"] == flags


def git(directory, *args):
    config = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", directory, *config, *args], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "__file__", str(tmp_path / "package" / "workdir.py"))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "workdir.py").write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def commit() -> tuple[str, bool]:
        recorded = workdir.environment()
        return recorded["commit"], recorded["dirty"]

    assert commit() == ("", False)  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "another project")
    assert commit() == ("", False)  # somebody else's repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit() == (head, False)
    (tmp_path / "package" / "workdir.py").write_text("changed")
    assert commit() == (head, True)
    monkeypatch.setenv("PATH", "")
    assert commit() == ("", False)  # no git
