"""However often and wherever a study is interrupted, its result is that of an uninterrupted one."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import main
from plasticity_jax.configs import multistage
from plasticity_jax.errors import LabError, Preempted, WorkdirError
from plasticity_jax.parallel import programs
from plasticity_jax.runner import dispatch, saver
from plasticity_jax.storage import checkpoints, metrics, workdir
from tests.support import commands, small

ROOT = Path(__file__).parents[2]


def config() -> ConfigDict:
    """The small study with evaluations, a snapshot, and checkpoints at every call."""
    settings = small.config(validation_images=8, checkpoint_seconds=0.0)
    settings.stages.tune.epochs = 2.0
    settings.stages.tune.branches = small.branches(**small.WARM, early={"after": "pretrain@1"})
    return settings


def outcome(directory: Path, result: dict | None = None) -> dict:
    """Everything in a finished study that must not depend on interruptions."""
    written = workdir.read_json(directory / "result.json")
    assert result is None or written == result
    assert workdir.read_json(directory / "status.json")["status"] == "finished"
    timed = ("seconds", "train_seconds", "images_per_second")
    return {"tables": small.tables(directory), **{key: value for key, value in written.items() if key not in timed}}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken")
    small.run(config(), directory)
    return directory


@pytest.fixture
def eager(monkeypatch):
    """Makes calls short, with a checkpoint before every one."""
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(saver, "CHECKPOINT_SHARE", 0)


class Killed(BaseException):
    """Is never caught, so nothing is saved after it, as after SIGKILL."""


PLACES = [
    (programs.Programs, "begin"),
    (programs.Programs, "advance"),
    (programs.Programs, "evaluate"),
    (programs.Programs, "evaluate_own"),
    (checkpoints.Checkpoints, "save"),
    (checkpoints.Checkpoints, "close"),
    (metrics.Table, "append"),
    (saver.shutil, "rmtree"),
    (workdir, "write_json"),
]


@contextlib.contextmanager
def interrupted(when, act):
    """Call `act` before and after those calls of functions that change anything at which `when()` is true."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in PLACES:
            real = getattr(owner, name)

            def wrapped(*args, real=real, **options):
                if when():
                    act()
                value = real(*args, **options)
                if when():
                    act()
                return value

            patch.setattr(owner, name, wrapped)
        yield


def kill():
    raise Killed


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)


# In one process, where every place can be interrupted.


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_killed_again_and_again(seed, tmp_path, unbroken, eager):
    draw = random.Random(seed)
    kills = 0
    for _ in range(100):
        left = draw.randint(20, 120)

        def when():
            nonlocal left
            left -= 1
            return left == 0

        with interrupted(when, kill):
            try:
                small.run(config(), tmp_path)
                break
            except Killed:
                kills += 1
    assert kills >= 3
    assert outcome(tmp_path) == outcome(unbroken)


@pytest.mark.slow
def test_told_to_stop_again_and_again(tmp_path, unbroken, eager):
    draw = random.Random(2)
    handlers = [signal.getsignal(number) for number in STOPS]
    stops = 0
    for _ in range(100):
        left = draw.randint(30, 160)

        def when():
            nonlocal left
            left -= 1
            return left == 0

        with interrupted(when, draw.choice((terminate, hang_up))):
            try:
                small.run(config(), tmp_path)
                break
            except Preempted:
                stops += 1
        status = workdir.read_json(tmp_path / "status.json")
        assert (status["status"], status["exit_code"]) == ("preempted", 75)
        assert not (tmp_path / "result.json").exists()
    assert stops >= 3
    assert outcome(tmp_path) == outcome(unbroken)
    assert [signal.getsignal(number) for number in STOPS] == handlers


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The directory after SIGTERM at step 9 of 12 of `tune`."""
    directory = tmp_path_factory.mktemp("stopped")
    real = programs.Programs.advance

    def advance(self, stage, states, *args):
        if stage.name == "tune" and int(states.step.max()) == 9:
            terminate()
        return real(self, stage, states, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs.Programs, "advance", advance)
        patch.setattr(dispatch, "CALL_SECONDS", 0.0)
        patch.setattr(saver, "CHECKPOINT_SHARE", 0)
        with pytest.raises(Preempted, match="stopped in stage tune"):
            small.run(config(), directory)
    return directory


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of the stopped directory."""
    return shutil.copytree(stopped, tmp_path / "half")


@pytest.fixture
def calls(monkeypatch):
    """(stage, step) of every call that trains, at its start."""
    calls = []
    real = programs.Programs.advance

    def advance(self, stage, states, *args):
        calls.append((stage.name, int(states.step.max())))
        return real(self, stage, states, *args)

    monkeypatch.setattr(programs.Programs, "advance", advance)
    return calls


def rolling(directory: Path) -> list[Path]:
    """The checkpoints of the stopped stage, the oldest first."""
    return sorted((directory / "main" / "tune" / "checkpoints").iterdir(), key=lambda path: int(path.name))


def spoil(directory: Path) -> None:
    """Change a byte in the largest file below a directory."""
    path = max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_nothing_is_trained_twice_after_a_stop(half, unbroken, calls):
    small.run(config(), half)
    assert calls[0] == ("tune", 10) and {stage for stage, _ in calls} == {"tune"}
    assert outcome(half) == outcome(unbroken)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(half, unbroken, calls):
    spoil(rolling(half)[-1])
    small.run(config(), half)
    assert calls[0] == ("tune", 9)
    assert outcome(half) == outcome(unbroken)


def test_without_any_good_checkpoint_the_stage_starts_again(half, unbroken, calls):
    for path in rolling(half):
        spoil(path)
    small.run(config(), half)
    assert calls[0] == ("tune", 0)
    assert outcome(half) == outcome(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("tail", [b'{"run": "fresh/se', b'{"run": "fresh/seed0", "seed": 0}\n', b"\x00\xff\n\n"])
def test_rows_that_no_checkpoint_knows_of_are_cut(tail, half, unbroken, calls):
    with open(half / "main" / "tune" / "metrics.jsonl", "ab") as table:
        table.write(tail)
    small.run(config(), half)
    assert calls[0] == ("tune", 10)
    assert outcome(half) == outcome(unbroken)


def test_rows_behind_the_end_of_a_stage_are_cut(tmp_path, unbroken, calls):
    directory = shutil.copytree(unbroken, tmp_path / "longer")
    for stage in ("pretrain", "tune"):
        table = directory / "main" / stage / "metrics.jsonl"
        table.write_bytes(table.read_bytes() + table.read_bytes().splitlines(keepends=True)[-1] + b'{"run": "fre')
    small.run(config(), directory)
    assert not calls
    assert outcome(directory) == outcome(unbroken)


@pytest.mark.slow
def test_a_snapshot_that_is_damaged_before_its_stage_ends_is_made_again(tmp_path, unbroken, calls):
    """Immediately, as a later stage would fail on it."""
    real = programs.Programs.advance

    def advance(self, stage, states, *args):
        if int(states.step.max()) == 4:
            terminate()
        return real(self, stage, states, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs.Programs, "advance", advance)
        patch.setattr(dispatch, "CALL_SECONDS", 0.0)
        patch.setattr(saver, "CHECKPOINT_SHARE", 0)
        with pytest.raises(Preempted, match="stopped in stage pretrain"):
            small.run(config(), tmp_path)
    damage_snapshot(tmp_path / "main" / "pretrain")
    calls.clear()
    small.run(config(), tmp_path)
    assert calls[0] == ("pretrain", 0)
    assert outcome(tmp_path) == outcome(unbroken)


@pytest.mark.slow
def test_rows_changed_under_its_hands_are_noticed(half, unbroken, monkeypatch):
    """They do not get into the result; the next start trains them again."""
    real = metrics.read

    def late(path, *mark):
        if mark and path.parent.name == "tune":
            path.write_bytes(path.read_bytes().replace(b'"value": ', b'"value": 1', 1))
        return real(path, *mark)

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "read", late)
        with pytest.raises(LabError, match="was changed by something else; the same command"):
            small.run(config(), half)
    small.run(config(), half)
    assert outcome(half) == outcome(unbroken)


def test_rows_that_are_missing_are_made_again(half, unbroken, calls):
    table = half / "main" / "tune" / "metrics.jsonl"
    table.write_bytes(table.read_bytes()[:-100])
    small.run(config(), half)
    assert calls[0] == ("tune", 0)
    assert outcome(half) == outcome(unbroken)


def damage_end(directory: Path) -> None:
    spoil(directory / "end" / "0")


def damage_snapshot(directory: Path) -> None:
    for path in (directory / "snapshots").glob("*"):
        spoil(path)


def damage_table(directory: Path) -> None:
    path = directory / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"test_accuracy", b"test-accuracy", 1))


@pytest.mark.parametrize(
    ("damage", "stage"),
    [
        (damage_end, "pretrain"),
        (damage_table, "tune"),
        (shutil.rmtree, "tune"),
        *(pytest.param(*both, marks=pytest.mark.long) for both in ((damage_end, "tune"), (damage_table, "pretrain"))),
        pytest.param(shutil.rmtree, "pretrain", marks=pytest.mark.long),
    ],
)
def test_a_damaged_end_is_made_again(damage, stage, tmp_path, unbroken, calls):
    directory = shutil.copytree(unbroken, tmp_path / "damaged")
    damage(directory / "main" / stage)
    small.run(config(), directory)
    assert {stage for stage, _ in calls} == {stage}
    assert outcome(directory) == outcome(unbroken)


def test_a_damaged_snapshot_is_made_again(tmp_path, unbroken, calls, capsys):
    """Even if its stage has ended, as later stages start from it."""
    directory = shutil.copytree(unbroken, tmp_path / "damaged")
    damage_snapshot(directory / "main" / "pretrain")
    shutil.rmtree(directory / "main" / "tune")
    small.run(config(), directory)
    assert {stage for stage, _ in calls} == {"pretrain", "tune"}
    assert outcome(directory) == outcome(unbroken)


def test_a_damaged_clock_costs_nothing(half, unbroken):
    (half / "main" / "clock.json").write_text("[1, 2")
    small.run(config(), half)
    assert outcome(half) == outcome(unbroken)


@pytest.mark.parametrize("text", ["{}", "[]", '{"dataset": 1}'])
def test_a_damaged_environment_is_one_line(text, half):
    (half / "environment.json").write_text(text)
    with pytest.raises(WorkdirError, match="environment.json is damaged; delete it to continue"):
        small.run(config(), half)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [None, "tune", "main"], ids=["stopped", "joined to its parent", "nothing trained"])
def test_another_random_stream_of_numpy_is_refused(lost, half, monkeypatch, calls):
    """Otherwise a seed would continue with other images than it began with."""
    if lost:
        shutil.rmtree(half / "main" / ("" if lost == "main" else lost))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: np.random.Generator(np.random.MT19937(seed)))
    if lost == "main":
        assert small.run(config(), half)["status"] == "finished"
        return
    before = sorted(half.rglob("*.jsonl"))
    with pytest.raises(LabError, match="stage pretrain .* was trained on other images or labels than are drawn now"):
        small.run(config(), half)
    assert not calls and sorted(half.rglob("*.jsonl")) == before


@pytest.mark.slow
def test_a_stopped_stage_itself_is_compared(tmp_path, monkeypatch):
    settings = small.single()
    settings.checkpoint_seconds = 0.0
    real = programs.Programs.advance

    def advance(self, stage, states, *args):
        if int(states.step.max()) == 6:
            terminate()
        return real(self, stage, states, *args)

    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(programs.Programs, "advance", advance)
        patch.setattr(dispatch, "CALL_SECONDS", 0.0)
        small.run(settings, tmp_path)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: np.random.Generator(np.random.MT19937(seed)))
    with pytest.raises(LabError, match="stage train .* was trained on other images"):
        small.run(settings, tmp_path)


def test_seconds_add_up_over_interruptions(half):
    before = workdir.read_json(half / "main" / "clock.json")
    result = small.run(config(), half)
    after = result["seconds"] | {f"train/{name.partition('/')[2]}": s for name, s in result["train_seconds"].items()}
    assert set(after) >= set(before)
    assert all(after[kind] >= before[kind] for kind in before) and after["train"] > before["train"]


def test_only_a_few_checkpoints_lie_around(half, unbroken):
    assert len(rolling(half)) == 2
    assert not (half / "main" / "pretrain" / "checkpoints").exists()
    assert [path.name for path in (unbroken / "main" / "pretrain" / "snapshots").iterdir()] == ["1"]
    assert not list(unbroken.rglob("*tmp*"))


def test_where_data_lie_and_how_often_to_save_may_change(half, unbroken):
    other = config()
    other.update(checkpoint_seconds=99.0, data_dir="/elsewhere")
    small.run(other, half)
    assert outcome(half) == outcome(unbroken)


# With real signals and real processes.


def child(directory: str) -> None:
    """Runs the study with checkpoints at every call, in calls of a few steps."""
    dispatch.CALL_SECONDS, saver.CHECKPOINT_SHARE = 0.005, 0
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        os.dup2(null.fileno(), sys.stderr.fileno())
        small.run(config(), Path(directory))


@pytest.mark.long
@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked")
def test_killed_at_random_times(tmp_path, unbroken):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_resume"])
    draw = random.Random(0)

    def attempt(directory: Path, seconds: float | None) -> int:
        """The exit code of a process that is killed `seconds` after it has begun to work in the directory."""
        process = context.Process(target=child, args=(str(directory),))
        process.start()
        status = directory / "status.json"
        while process.is_alive() and not (status.exists() and workdir.read_json(status)["pid"] == process.pid):
            time.sleep(0.01)
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode

    assert attempt(tmp_path / "first", None) == 0  # compiles the programs for the following ones
    assert attempt(tmp_path / "whole", None) == 0
    assert outcome(tmp_path / "whole") == outcome(unbroken)
    start, end = ((tmp_path / "whole" / name).stat().st_mtime for name in ("environment.json", "status.json"))
    for share in (0.5, 0.2, 0):  # where the machine has slowed down or sped up since, the first kill may come too late
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        exits = [attempt(tmp_path / "broken", share * draw.uniform(0.2, 1) * (end - start))]
        if exits[0]:
            break
    while exits[-1] and len(exits) < 10:
        exits.append(attempt(tmp_path / "broken", None if len(exits) == 4 else draw.uniform(0, 0.8) * (end - start)))
    assert exits[0] == -signal.SIGKILL and exits[-1] == 0
    assert outcome(tmp_path / "broken") == outcome(unbroken)


@pytest.mark.long  # by day signals are sent to this process, and tests/test_main.py looks at the exit status
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_command_stops_and_goes_on(number, tmp_path, capsys):
    broken = tmp_path / "what[1] is* this?\n%s"
    overrides = {
        "model.name": "mlp",
        "model.depth": 1,
        "diagnostics": (),
        "seeds": (0,),
        "strategy": "loop",
        "stages.pretrain.epochs": 30.0,
        "stages.tune.epochs": 2.0,
        "checkpoint_seconds": 600.0,
    }
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    command = [sys.executable, "-m", "plasticity_jax.main", "--config=configs/multistage.py:digits"]
    command += [f"--workdir={broken}", *flags]
    table = broken / "main" / "pretrain" / "metrics.jsonl"
    reader, writer = os.pipe()
    os.close(reader)  # as behind `| head`
    with subprocess.Popen(command, cwd=ROOT, stdout=writer, stderr=writer) as process:
        os.close(writer)
        while process.poll() is None and not (table.exists() and table.stat().st_size):
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == 75
    status = workdir.read_json(broken / "status.json")
    assert (status["status"], status["exit_code"], status["pid"]) == ("preempted", 75, process.pid)
    done = commands.call(main.main, *command[3:], capture=capsys)
    assert done.status == 0, done.err
    assert "fresh - pretrain+tune" in done.out

    same = multistage.get_config("digits")
    same.update_from_flattened_dict(overrides)
    plasticity_jax.run(same, tmp_path / "whole")
    assert outcome(broken) == outcome(tmp_path / "whole")
