"""Runs that have ended are removed from the devices, by strategies that train all runs at once."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import plasticity_jax
from plasticity_jax.errors import Preempted
from plasticity_jax.parallel import programs, run_axis
from plasticity_jax.runner import lineup
from tests.support import small


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_half_of_the_rows_train_or_all_runs_have_one(closed):
    selection = lineup.whole(len(closed)).after(closed, "vmap")
    training = [run for run, ended in enumerate(closed) if not ended]
    assert set(training) <= set(selection.runs) <= set(range(len(closed))) and len(set(selection.runs)) == len(
        selection.runs
    )
    if training:
        assert list(selection.runs[: len(training)]) == training or len(selection.runs) == len(closed)
        assert 2 * len(training) >= len(selection.runs) or len(selection.runs) == len(training)
    assert selection.after(closed, "vmap") is selection
    for strategy in ("map", "cores", "loop"):
        assert len(lineup.whole(len(closed)).after(closed, strategy).runs) == len(closed)


def test_every_run_has_its_own_state_wherever_it_is():
    first, closed = lineup.whole(8), [run not in (1, 4, 6) for run in range(8)]
    selection = first.after(closed, "vmap")
    after, (rows,) = selection.moved(first, run_axis.place((np.arange(8),), "vmap"), "vmap")
    assert sorted(after.runs) == [0, 1, 4, 6]
    for trained, everyone in ((rows, range(8)), (np.asarray(rows) + 100, (100, 101, 2, 3, 104, 5, 106, 7))):
        (states,) = after.fetch(lambda states: states, run_axis.place((trained,), "vmap"))
        assert states.tolist() == list(everyone)


def study(strategy):
    """Eight runs, of which four remain after two epochs, and two after three; another stage continues from them."""
    settings = small.single(epochs=1.0)
    lengths = ("stages.train.epochs", (1.0, 2.0, 3.0, 5.0))
    settings.update(strategy=strategy, grid=(lengths,), validation_images=8, diagnostics=("weight_norm",))
    settings.update(checkpoint_seconds=0.0)
    return settings


def widths(monkeypatch, stop_at=0):
    """The number of rows that each call trains; the call numbered `stop_at` is the last."""
    counts, real = [], programs.Programs.advance

    def advance(self, stage, states, *args):
        counts.append(len(states.step))
        if len(counts) == stop_at:
            raise KeyboardInterrupt
        return real(self, stage, states, *args)

    monkeypatch.setattr(programs.Programs, "advance", advance)
    return counts


def numbers(directory):
    return {(r["run"], r["step"], r["metric"]): r["value"] for r in small.rows(directory, "train")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The study by `vmap` with a checkpoint at every call: its result, the rows of each call, and its directory."""
    with pytest.MonkeyPatch.context() as patch:
        save_at_every_call(patch)
        counts, directory = widths(patch), tmp_path_factory.mktemp("unbroken")
        return small.run(study("vmap"), directory), counts, directory


def save_at_every_call(monkeypatch):
    monkeypatch.setattr("plasticity_jax.runner.dispatch.CALL_SECONDS", 0.0)
    monkeypatch.setattr("plasticity_jax.runner.saver.CHECKPOINT_SHARE", 0)


@pytest.mark.slow
def test_those_that_train_go_on_in_fewer_rows(unbroken, tmp_path):
    result, counts, directory = unbroken
    assert sorted(set(counts), reverse=True) == [8, 4, 2] and counts == sorted(counts, reverse=True)
    assert len(result["runs"]) == 8 and result["status"] == "finished"
    small.run(study("map"), tmp_path)
    together, turns = numbers(directory), numbers(tmp_path)
    assert together.keys() == turns.keys()
    np.testing.assert_allclose([*together.values()], [turns[key] for key in together], rtol=1e-3, atol=1e-4)
    for epochs in (1.0, 3.0, 5.0):
        which = dict(branch="train", seed=1, hparams={"epochs": epochs})
        ends = [plasticity_jax.load(run, **which)[1] for run in (directory, tmp_path)]
        for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [-1, pytest.param(-3, marks=pytest.mark.long)])
def test_stopped_in_fewer_rows_it_ends_with_the_same_bits(stop_at, unbroken, tmp_path, monkeypatch):
    result, counts, directory = unbroken
    save_at_every_call(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Preempted)):
        widths(patch, len(counts) + stop_at)
        small.run(study("vmap"), tmp_path)
    with monkeypatch.context() as patch:
        again = widths(patch)
        resumed = small.run(study("vmap"), tmp_path)
    assert again and max(again) == 2
    assert small.hashes(resumed) == small.hashes(result)
    assert small.tables(tmp_path) == small.tables(directory)
