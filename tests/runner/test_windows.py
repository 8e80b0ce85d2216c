"""Wherever the images of a study are stored, every bit is the same; also if the place changes between two starts."""

import contextlib
import json

import pytest

import plasticity_jax
from plasticity_jax.configs import base
from plasticity_jax.parallel import programs
from plasticity_jax.runner import dispatch, saver, windows
from tests.support import prepared, small

IMAGE = 8 * 8  # bytes


def study(place, strategy="loop", **top):
    """Two stages whose runs differ in length and in their draws, evaluated on every kind of images."""
    return small.config(images=place, strategy=strategy, validation_images=8, train_eval_images=20, **top)


def everything(place, strategy="loop"):
    """Everything that reads images: blends, patches, reference batches, a sweep at the start, instruments."""
    settings = study(place, strategy, instruments=("kernel",), measure_images=16)
    settings.diagnostics = ("dormant_fraction",)
    settings.stages.tune.branches = small.branches(
        fresh={"after": "init", "data": {"recipe": "blend", "fraction": 0.3}},
        **{"pretrain+tune": {"after": "pretrain", "data": {"fraction": 0.4}, "batch_size": 16}},
    )
    settings.stages.tune.update(remedies=base.treated(dash={}, redo={}), measure_steps=(0, 7), augment="crop")
    settings.stages.pretrain.data.patch.share = 0.3
    settings.stages.pretrain.data.patch.size = 3
    return settings


@pytest.fixture
def narrow(monkeypatch):
    """Limits windows to a few images."""
    monkeypatch.setattr(windows, "BYTES_ON_CPU", 40 * IMAGE)


def outcome(directory, config):
    return small.hashes(small.run(config, directory)), small.tables(directory)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["cores", *(pytest.param(name, marks=pytest.mark.long) for name in ("loop", "map", "vmap", "split"))]
)
def test_no_bit_depends_on_where_images_lie(strategy, tmp_path, narrow):
    outcomes = [outcome(tmp_path / place, study(place, strategy)) for place in ("device", "host")]
    assert outcomes[0] == outcomes[1]
    clock = json.loads((tmp_path / "host" / "main" / "clock.json").read_text())
    assert 0 <= clock["input"] <= clock["train"] and clock["gather"] > 0


@pytest.mark.long
def test_all_that_looks_at_images_is_served(tmp_path, narrow):
    found = [outcome(tmp_path / place, everything(place)) for place in ("device", "host")]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def prepared_set(tmp_path_factory):
    """Images of 64x64 and other sizes; of a thousand class names twelve have images, one of them half of all."""
    root = tmp_path_factory.mktemp("prepared")
    sizes = ((64, 64), (80, 70), (64, 90))
    splits = {"train": prepared.noise(200, 12, sizes), "test": prepared.noise(60, 12, sizes, seed=1)}
    prepared.write(root, "varied", splits, [f"class{i}" for i in range(1000)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield str(root)


def stored(root, place):
    settings = small.config(images=place, dataset="varied", data_dir=root, resize=64, seeds=(0,), validation_images=8)
    for stage in settings.stages.values():
        stage.optim.learning_rate = 1e-3
    return settings


@pytest.mark.slow
def test_a_study_is_trained_killed_resumed_and_evaluated_from_every_place(prepared_set, tmp_path, monkeypatch):
    """The second half trains from another place than the first; the kept networks are evaluated from each place."""
    monkeypatch.setattr(windows, "BYTES_ON_CPU", 40 * 64 * 64 * 3)

    def run(place):
        return plasticity_jax.run(stored(prepared_set, place), tmp_path / "study")

    whole = plasticity_jax.run(stored(prepared_set, "device"), tmp_path / "whole")
    assert all(run["status"] == "finished" for run in whole["runs"])
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(saver, "CHECKPOINT_SHARE", 0)
    for place in ("host", "disk"):
        with killed_at_call(12), pytest.raises(Killed):
            run(place)
    result = run("auto")
    assert small.hashes(result) == small.hashes(whole)
    assert small.tables(tmp_path / "study") == small.tables(tmp_path / "whole")
    scores = []
    for place in ("host", "disk"):
        path = tmp_path / "study" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"images": place}))
        scores.append(plasticity_jax.evaluate(tmp_path / "study", "fresh", 0))
    assert scores[0] == scores[1] and scores[0]["images"] == 60


class Killed(BaseException):
    """Is never caught, so nothing is saved after it, as after SIGKILL."""


@contextlib.contextmanager
def killed_at_call(number):
    """Raise `Killed` at the n-th call of a training program."""
    calls, real = 0, programs.Programs.advance

    def advance(*args):
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs.Programs, "advance", advance)
        yield


@pytest.mark.parametrize("places", [("host", "device"), pytest.param(("device", "host"), marks=pytest.mark.long)])
def test_a_killed_study_goes_on_with_its_images_elsewhere(places, tmp_path, narrow, monkeypatch):
    whole = outcome(tmp_path / "whole", study("device"))
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(saver, "CHECKPOINT_SHARE", 0)
    first, second = (study(place, checkpoint_seconds=0.0) for place in places)
    with killed_at_call(10), pytest.raises(Killed):  # in the middle of the second stage
        small.run(first, tmp_path / "moved")
    before = json.loads((tmp_path / "moved" / "main" / "clock.json").read_text())
    assert outcome(tmp_path / "moved", second) == whole
    after = json.loads((tmp_path / "moved" / "main" / "clock.json").read_text())
    assert ("gather" in before, after.get("gather") != before.get("gather")) == (
        places[0] == "host",
        places[1] == "host",
    )
