"""Wall-clock time is added up, also over restarts."""

import types

import pytest

from plasticity_jax.storage import timers, workdir


@pytest.fixture
def now(monkeypatch):
    """A clock that advances only when a test says so."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(timers, "time", types.SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def test_kinds_and_total(now, tmp_path):
    counted = timers.Clock(tmp_path / "main" / "clock.json")
    for kind, seconds in (("train", 3.0), ("evaluate", 1.0), ("train", 0.5)):
        with counted(kind):
            now.seconds += seconds
    now.seconds += 2.0
    counted.add("compile", 0.25)
    expected = {"train": 3.5, "evaluate": 1.0, "compile": 0.25, "total": 6.5}
    assert counted.save() == expected == workdir.read_json(tmp_path / "main" / "clock.json")
    now.seconds += 1.0
    assert counted.save()["total"] == 7.5


def test_restarts_go_on(now, tmp_path):
    for expected in (4.0, 8.0, 12.0):
        counted = timers.Clock(tmp_path / "clock.json")
        with counted("train"):
            now.seconds += 3.0
        now.seconds += 1.0
        counted.save()
        assert counted.save() == {"train": expected * 3 / 4, "total": expected}  # saving twice counts once
        now.seconds += 1000.0  # between two processes


def test_time_before_an_error_counts(now, tmp_path):
    counted = timers.Clock(tmp_path / "clock.json")
    with pytest.raises(KeyError), counted("train"):
        now.seconds += 3.0
        raise KeyError
    assert counted.save() == {"train": 3.0, "total": 3.0}
