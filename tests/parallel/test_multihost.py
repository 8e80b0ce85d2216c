"""Processes that train one study together write it once, stop together, and get the result of a single one."""

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.errors import CheckpointError, ConfigError, LabError, Preempted
from plasticity_jax.parallel import cpu, multihost, programs, run_axis
from plasticity_jax.runner import signals, windows
from plasticity_jax.storage import workdir
from tests.parallel.test_devices import CLOSE, found, numbers, stopping
from tests.support import crew, small


def config(**top):
    measured = ("weight_norm", "dormant_fraction")
    return small.config(**{"strategy": "map", "checkpoint_seconds": 0.0, "diagnostics": measured} | top)


# ---- alone ----


def test_alone_everything_is_its_own():
    assert multihost.alone() and multihost.first()
    assert (multihost.agree(7), multihost.least(7), multihost.any_of(True), multihost.any_of(False)) == (
        7,
        7,
        True,
        False,
    )
    thing = object()
    assert multihost.once(lambda: thing) is thing and multihost.in_turn(lambda: thing) is thing
    assert multihost.fetch({"a": jax.numpy.arange(3)})["a"].tolist() == [0, 1, 2]


def test_alone_an_error_goes_its_way():
    with pytest.raises(ZeroDivisionError), multihost.together():
        print(1 / 0)


def test_alone_unless_the_environment_names_others(monkeypatch):
    for name in (multihost.ADDRESS, multihost.TASKS):
        monkeypatch.delenv(name, raising=False)
    multihost.join()
    monkeypatch.setenv(multihost.ADDRESS, "")
    for value in ("1", "", " ", "0"):
        monkeypatch.setenv(multihost.TASKS, value)
        multihost.join()
    assert not jax.distributed.is_initialized()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs", "Nd")), min_size=1))
def test_a_number_of_tasks_that_is_none_is_an_error(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(multihost.ADDRESS, raising=False)
        patch.setenv(multihost.TASKS, value)
        if value.strip():
            with pytest.raises(LabError, match=f"^{multihost.TASKS}=.* is not an integer; unset it to train"):
                multihost.join()


@pytest.mark.parametrize("missing", multihost.SLURM)
@pytest.mark.parametrize("empty", [True, False])
def test_half_a_slurm_step_is_an_error(missing, empty, monkeypatch):
    monkeypatch.delenv(multihost.ADDRESS, raising=False)
    for name in (multihost.TASKS, *multihost.SLURM):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv(missing, "")
    if not empty:
        monkeypatch.delenv(missing)
    with pytest.raises(
        LabError, match=f"{multihost.TASKS}=4, but {missing} is not set; unset {multihost.TASKS} to train"
    ):
        multihost.join()


STEP = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "4"}
STEP |= {multihost.TASKS: "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.slow
def test_a_process_that_waits_in_vain_says_for_whom_and_ends_in_one_line(tmp_path):
    """As in the shell of `srun --pty bash` in an allocation of four tasks."""
    code = "from plasticity_jax.parallel import multihost; multihost.join(patience=1)"
    [(status, text)] = crew.finish(crew.start(code, tmp_path, **STEP))
    first, last = text.splitlines()
    assert status == 1
    assert first.startswith("note: this is process 0 of 4 (SLURM_STEP_NUM_TASKS), waiting for the others; if there are")
    assert last.startswith("error: timed out after 1 s; this is process 0 of 4") and "SLURM_STEP_NUM_TASKS=1" in last


@pytest.mark.parametrize("missing", [multihost.COUNT, multihost.INDEX])
def test_half_an_address_is_an_error(missing, monkeypatch):
    for name, value in {multihost.ADDRESS: "127.0.0.1:1", multihost.COUNT: "2", multihost.INDEX: "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(missing, "two")
    with pytest.raises(LabError, match=f"{multihost.COUNT} and {multihost.INDEX} must be too"):
        multihost.join()


# ---- two processes ----


def talk() -> None:
    """Runs each function in two processes."""
    me = jax.process_index()
    assert not multihost.alone() and multihost.first() == (me == 0)
    assert multihost.agree(10 + me) == 10 and multihost.least((1 << 40) + me) == 1 << 40 and multihost.least(-me) == -1
    assert multihost.any_of(me == 1) and not multihost.any_of(False)
    done: list[int] = []
    said = multihost.once(lambda: [done.append(me), multihost.alone(), multihost.agree(3), {"a": [1.5, None]}][1:])
    assert said == [True, 3, {"a": [1.5, None]}] and done == [0] * (me == 0)
    assert multihost.in_turn(lambda: me) == me
    for kind in (ConfigError, CheckpointError):
        try:
            multihost.once(functools.partial(fail, kind("no")))
        except kind as error:
            assert str(error) == "no"
        else:
            raise AssertionError("nothing was raised here")


def fail(error: Exception) -> None:
    raise error


def talk_while_devices_work() -> None:
    """Results of an earlier program, and whether to stop, are exchanged while a later program still computes."""
    cpu.use_all_cores()
    rows = run_axis.place({"step": np.arange(3, dtype=np.int32), "done": np.array([True, False, True])}, "cores")
    program = jax.jit(lambda rows: jax.tree.map(lambda leaf: leaf ^ 1, rows))
    computed = program(rows)
    matrix = jax.device_put(np.full((500, 500), 1e-3, np.float32), jax.local_devices()[0])
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 2000, lambda _, y: x @ y, x)).lower(matrix).compile()
    multihost.agree(0)  # both begin at the same time
    result = work(matrix)
    fetched = run_axis.fetch(computed, 3, few=True)
    assert multihost.any_of(jax.process_index() == 1) and not result.is_ready()
    assert fetched["step"].tolist() == [1, 0, 3] and fetched["done"].tolist() == [False, True, False]
    assert run_axis.fetch(computed["step"], 3).tolist() == [1, 0, 3]


@pytest.mark.long
def test_talk_does_not_wait_for_the_devices(tmp_path):
    code = "from plasticity_jax.parallel import multihost; multihost.join(); "
    code += "from tests.parallel import test_multihost as test; test.talk(); test.talk_while_devices_work()"
    ended = crew.finish(crew.start(code, tmp_path, count=2), 120)
    assert [status for status, _ in ended] == [0, 0], "\n".join(text for _, text in ended)


def child(scratch: str) -> None:
    """Trains studies in two processes, one after another; process 0 writes the results."""
    multihost.join()
    outcomes, me = {}, jax.process_index()
    talk()

    def study(name: str, **top) -> dict:
        result = small.run(config(**top), Path(scratch, name), model=small.Net())
        return multihost.once(lambda: found(Path(scratch, name), result))

    outcomes["dealt"] = study("dealt")
    outcomes["split"] = study("split", seeds=(1,))
    windows.BYTES_ON_CPU = 40 * 8 * 8  # a few images at a time
    outcomes["dealt from the host"] = study("dealt_host", images="host")
    outcomes["split from the host"] = study("split_host", images="host", seeds=(1,))
    outcomes["repeated"] = study("repeated", seeds=(1,), strategy="cores")
    with stopping(lambda step: me == 1 and step == 9):  # only the second is told to stop
        try:
            study("moved")
        except Preempted:
            outcomes["stopped"] = True
    outcomes["resumed"] = study("moved")
    if me == 0:
        Path(scratch, "outcomes.json").write_text(json.dumps(outcomes))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("peers")
    ended = crew.finish(
        crew.start(
            f"from tests.parallel import test_multihost; test_multihost.child({str(scratch)!r})", scratch, count=2
        ),
        600,
    )
    assert [status for status, _ in ended] == [0, 0], "\n".join(text for _, text in ended)
    return json.loads((scratch / "outcomes.json").read_text()) | {"printed": [text for _, text in ended]}


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """The same studies, trained by this process alone."""
    outcomes = {}
    for name, seeds in (("both", (0, 1)), ("single", (1,))):
        directory = tmp_path_factory.mktemp(name)
        outcomes[name] = found(directory, small.run(config(seeds=seeds), directory, model=small.Net()))
    return outcomes


@pytest.mark.long
@pytest.mark.parametrize("name", ["dealt", "resumed"])
def test_two_processes_come_to_what_one_does(outcomes, by_one, name):
    """Runs are distributed over both, and no row is written twice; also after a stop of which only one was told."""
    assert [row[:3] for row in outcomes[name]["rows"]] == [row[:3] for row in by_one["both"]["rows"]]
    for a, b in zip(by_one["both"]["leaves"], outcomes[name]["leaves"], strict=True):
        np.testing.assert_allclose(b, a, **CLOSE)
    np.testing.assert_allclose(numbers(outcomes[name]), numbers(by_one["both"]), rtol=1e-3)
    assert outcomes["stopped"] and outcomes["resumed"] == outcomes["dealt"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["split", "repeated"])
def test_a_lone_run_in_two_processes(outcomes, by_one, name):
    """Its batches are split over both, or both compute the same."""
    for a, b in zip(by_one["single"]["leaves"], outcomes[name]["leaves"], strict=True):
        np.testing.assert_allclose(b, a, **CLOSE)
    assert outcomes["split"]["leaves"] != outcomes["repeated"]["leaves"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["dealt", "split"])
def test_each_process_sends_its_devices_what_their_runs_look_at(outcomes, name):
    assert outcomes[f"{name} from the host"] == outcomes[name]


@pytest.mark.long
def test_only_the_first_process_says_how_it_goes(outcomes):
    first, second = outcomes["printed"]
    assert "fresh - pretrain+tune" in first and "programs to compile" in first
    assert "fresh - pretrain+tune" not in second and "programs to compile" not in second


def long():
    """A study that takes minutes, with a checkpoint before every call."""
    wanted = config()
    wanted.stages.tune.update(epochs=10000.0, eval_every=0)
    return wanted


def long_child(directory: str) -> None:
    multihost.join()
    with multihost.together(), stopping(lambda step: False):
        small.run(long(), Path(directory), model=small.Net())


@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other(tmp_path, lost):
    """And the saved study is resumed, here by one process."""
    processes = crew.start(
        f"from tests.parallel import test_multihost; test_multihost.long_child({str(tmp_path)!r})", tmp_path, count=2
    )
    saved = tmp_path / "main" / "tune" / "checkpoints"
    try:
        deadline = time.monotonic() + 300
        while not (saved.exists() and any(path.name.isdecimal() and int(path.name) > 3 for path in saved.iterdir())):
            assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
            time.sleep(0.05)
        processes[lost].send_signal(signal.SIGKILL)
    finally:
        ended = crew.finish(processes, 4 * multihost.SILENCE)
    assert ended[lost][0] == -signal.SIGKILL and ended[1 - lost][0] not in (0, None), ended
    with stopping(lambda step: True) as steps, pytest.raises(Preempted):
        small.run(long(), tmp_path, model=small.Net())
    assert steps[0] > 0


def early_child(directory: str, told: int) -> None:
    """Only one process is asked to stop, just before the programs of the study are compiled; it listens like `main`."""
    multihost.join()
    real = programs.Programs.__init__

    def init(self, *args):
        if jax.process_index() == told:
            signal.raise_signal(signal.SIGTERM)
        real(self, *args)

    try:
        with signals.listening(), multihost.together(), mock.patch.object(programs.Programs, "__init__", init):
            small.run(long(), Path(directory), model=small.Net())
    except Preempted:
        sys.exit(75)


def stopped_and_refused(stopped: str, refused: str) -> None:
    """One study after the other."""
    try:
        early_child(stopped, 0)
    except SystemExit as end:
        print(f"stopped with {end.code}", flush=True)
    long_child(refused)


@pytest.mark.long
def test_a_stop_before_training_of_the_second_stops_both(tmp_path):
    code = f"from tests.parallel import test_multihost; test_multihost.early_child({str(tmp_path)!r}, 1)"
    ended = crew.finish(crew.start(code, tmp_path, count=2), 120)
    assert [status for status, _ in ended] == [75, 75], "\n".join(text for _, text in ended)
    assert workdir.read_json(tmp_path / "status.json")["status"] == "preempted"


@pytest.mark.long
def test_a_stop_before_training_stops_both_and_an_error_of_the_first_ends_both_in_one_line(tmp_path):
    """Only the first process gets either: a signal, or a directory of another study."""
    stopped, refused = tmp_path / "stopped", tmp_path / "refused"
    refused.mkdir()
    workdir.write_json(refused / "config.json", {"name": "another"})
    call = f"test_multihost.stopped_and_refused({str(stopped)!r}, {str(refused)!r})"
    code = f"from tests.parallel import test_multihost; {call}"
    for status, text in crew.finish(crew.start(code, tmp_path, count=2), 120):
        assert status == 1 and "stopped with 75\n" in text, text
        assert "error: workdir" in text and "belongs to another config" in text
        assert "Traceback" not in text
    assert workdir.read_json(stopped / "status.json")["status"] == "preempted"
    assert not (refused / "main").exists()
