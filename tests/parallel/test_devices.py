"""One study on 1, 2, 4 and 8 devices: with runs distributed it is equal bit for bit, with batches split it is close.

All in one child process with eight devices, of which a study is shown some.
"""

import contextlib
import json
import shutil
import signal
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax.errors import Preempted
from plasticity_jax.parallel import programs, run_axis
from plasticity_jax.runner import dispatch, saver
from tests.support import crew, small

COUNTS = (1, 2, 4, 8)
CLOSE = dict(rtol=1e-4, atol=1e-5)  # after 24 steps in all; the devices add the gradients up in another order


def config(strategy: str):
    """Two runs that pretrain and four that tune; 18 steps of 16 images in the last stage."""
    return small.config(strategy=strategy, checkpoint_seconds=0.0, diagnostics=("weight_norm", "dormant_fraction"))


@contextlib.contextmanager
def shown(count: int):
    """Pretends that there are only `count` devices."""
    there = jax.devices()[:count]
    with mock.patch.object(jax, "devices", lambda: there):
        yield


@contextlib.contextmanager
def stopping(when):
    """SIGTERM at the first step of `tune` for which `when` is true, in short calls; yields the steps so far."""
    real, steps = programs.Programs.advance, []

    def advance(self, stage, states, *args):
        if stage.name == "tune":
            steps.append(int(states.step.max()))
            if when(steps[-1]):
                signal.raise_signal(signal.SIGTERM)
        return real(self, stage, states, *args)

    with (
        mock.patch.object(programs.Programs, "advance", advance),
        mock.patch.object(dispatch, "CALL_SECONDS", 0.0),
        mock.patch.object(saver, "CHECKPOINT_SHARE", 0),
    ):
        yield steps


def found(directory: Path, result: dict) -> dict:
    """What must agree: rows, and the parameters of each run by hash and by value."""
    _, params, stats = plasticity_jax.load(directory, "pretrain+tune", 1, model=small.Net())
    leaves = [np.asarray(leaf, np.float64).ravel().tolist() for leaf in jax.tree.leaves((params, stats))]
    rows = [[row["run"], row["metric"], row["step"], row["value"]] for row in small.rows(directory)]
    return {"hashes": small.hashes(result), "leaves": leaves, "rows": rows}


def child(scratch: str) -> None:
    """Trains every study by both strategies on each number of devices, and one that moves between them."""
    outcomes = {}
    for strategy in ("cores", "split"):
        for count in COUNTS:
            with shown(count):
                directory = Path(scratch, f"{strategy}-{count}")
                result = small.run(config(strategy), directory, model=small.Net())
                mesh = run_axis.mesh_for(strategy, 2)
                outcomes[f"{strategy}/{count}"] = found(directory, result) | {"mesh": list(mesh.devices.shape)}
        with shown(4), stopping((9).__eq__), contextlib.suppress(Preempted):
            small.run(config(strategy), Path(scratch, strategy), model=small.Net())
        for count in COUNTS:
            directory = shutil.copytree(Path(scratch, strategy), Path(scratch, f"{strategy}-moved-{count}"))
            with shown(count):
                result = small.run(config(strategy), directory, model=small.Net())
                outcomes[f"{strategy}/moved/{count}"] = found(directory, result)
    Path(scratch, "outcomes.json").write_text(json.dumps(outcomes))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("devices")
    code = f"from tests.parallel import test_devices; test_devices.child({str(scratch)!r})"
    ((status, text),) = crew.finish(crew.start(code, scratch, devices=8), 600)
    assert status == 0, text
    return json.loads((scratch / "outcomes.json").read_text())


def numbers(outcome: dict) -> list:
    return [value for *_, value in outcome["rows"]]


@pytest.mark.long
def test_the_mesh_has_runs_first_and_then_splits_batches(outcomes):
    assert [outcomes[f"cores/{count}"]["mesh"] for count in COUNTS] == [[1, 1], [2, 1], [2, 1], [2, 1]]
    assert [outcomes[f"split/{count}"]["mesh"] for count in COUNTS] == [[1, 1], [2, 1], [2, 2], [2, 4]]


@pytest.mark.long
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("moved", ["", "moved/"])
def test_dealt_out_runs_are_the_same_on_any_number_of_devices(outcomes, moved, count):
    one, other = outcomes["cores/1"], outcomes[f"cores/{moved}{count}"]
    assert one["rows"] == other["rows"] and one["hashes"] == other["hashes"] and one["leaves"] == other["leaves"]


@pytest.mark.long
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("moved", ["", "moved/"])
def test_split_batches_give_nearly_the_same(outcomes, moved, count):
    """The network has BatchNorm: with the statistics of a part of the batch it would be far off."""
    one, other = outcomes["split/1"], outcomes[f"split/{moved}{count}"]
    assert [row[:3] for row in one["rows"]] == [row[:3] for row in other["rows"]]
    for a, b in zip(one["leaves"], other["leaves"], strict=True):
        np.testing.assert_allclose(b, a, **CLOSE)
    np.testing.assert_allclose(numbers(other), numbers(one), rtol=1e-3)


@pytest.mark.long
def test_the_devices_do_split_the_batches(outcomes):
    """Otherwise the tests above would compare a study with itself."""
    assert outcomes["split/8"]["leaves"] != outcomes["split/1"]["leaves"]
    assert outcomes["split/8"]["leaves"] != outcomes["cores/8"]["leaves"]
