"""Wherever the images of a study lie, every bit is the same; also if they move while it stands still."""

import json

import pytest

from plasticity_jax.configs import base
from plasticity_jax.parallel import programs
from plasticity_jax.runner import dispatch, saver, windows
from tests.support import small

IMAGE = 8 * 8  # bytes


def study(place, strategy="loop", **top):
    """Two stages whose runs differ in length and in their draws, and every kind of images is looked at."""
    return small.config(images=place, strategy=strategy, validation_images=8, train_eval_images=20, **top)


def everything(place, strategy="loop"):
    """Of all that looks at images one: blends, patches, references of remedies, a sweep at the start, instruments."""
    found = study(place, strategy, instruments=("kernel",), measure_images=16)
    found.diagnostics = ("dormant_fraction",)
    found.stages.tune.branches = small.branches(
        fresh={"after": "init", "data": {"recipe": "blend", "fraction": 0.3}},
        **{"pretrain+tune": {"after": "pretrain", "data": {"fraction": 0.4}, "batch_size": 16}},
    )
    found.stages.tune.update(remedies=base.treated(dash={}, redo={}), measure_steps=(0, 7), augment="crop")
    found.stages.pretrain.data.patch.share = 0.3
    found.stages.pretrain.data.patch.size = 3
    return found


@pytest.fixture
def narrow(monkeypatch):
    """Windows of a few images."""
    monkeypatch.setattr(windows, "BYTES_ON_CPU", 40 * IMAGE)


def outcome(directory, config):
    return small.hashes(small.run(config, directory)), small.tables(directory)


@pytest.mark.parametrize(
    "strategy", ["loop", "cores", *(pytest.param(name, marks=pytest.mark.long) for name in ("map", "vmap", "split"))]
)
def test_no_bit_depends_on_where_images_lie(strategy, tmp_path, narrow):
    found = [outcome(tmp_path / place, study(place, strategy)) for place in ("device", "host")]
    assert found[0] == found[1]
    clock = json.loads((tmp_path / "host" / "main" / "clock.json").read_text())
    assert 0 <= clock["input"] <= clock["train"] and clock["gather"] > 0


def test_all_that_looks_at_images_is_served(tmp_path, narrow):
    found = [outcome(tmp_path / place, everything(place)) for place in ("device", "host")]
    assert found[0] == found[1]


class Killed(BaseException):
    """Nothing catches it, so nothing is saved after it, as after SIGKILL."""


@pytest.mark.parametrize("places", [("host", "device"), ("device", "host")])
def test_a_killed_study_goes_on_with_its_images_elsewhere(places, tmp_path, narrow, monkeypatch):
    whole = outcome(tmp_path / "whole", study("device"))
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(saver, "CHECKPOINT_SHARE", 0)
    calls, real = 0, programs.Programs.advance

    def advance(*args):
        nonlocal calls
        calls += 1
        if calls == 10:  # in the middle of the second stage
            raise Killed
        return real(*args)

    monkeypatch.setattr(programs.Programs, "advance", advance)
    first, second = (study(place, checkpoint_seconds=0.0) for place in places)
    with pytest.raises(Killed):
        small.run(first, tmp_path / "moved")
    assert outcome(tmp_path / "moved", second) == whole and calls < 40
