"""A study that `main` began becomes a sweep: what it trained is not trained again, and new seeds are as in `main`."""

import shutil

import pytest

import plasticity_jax
from plasticity_jax import analysis
from plasticity_jax.launch import job, jobs, sweep
from plasticity_jax.profiling import cost
from plasticity_jax.storage import workdir
from tests.support import commands, small, swept

# ml_collections loads config files by a deprecated method.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def config(seeds, widths=(4, 8)):
    names: dict = {}
    exec(swept.FILE, names)
    settings = names["one"](widths, (0.1,))
    settings.seeds = seeds
    return settings


def file(folder):
    path = folder / "config.py"
    path.write_text(swept.FILE + "\nget_config = lambda: one((4, 8), (0.1,))\n")
    return f"--config={path}"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The directory of a study of two widths and one seed."""
    folder = tmp_path_factory.mktemp("begun")
    plasticity_jax.run(config((0,)), folder)
    return folder


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setattr(cost, "measure", lambda pack, study, *_, **__: cost.Cost((), None, pack.model.name, "loop"))
    return lambda *args: commands.call(sweep.main, *args, capture=capsys)


def test_it_gets_another_seed(begun, call, tmp_path):
    args = file(tmp_path), f"--workdir={tmp_path / 'sweep'}", f"--begun={begun}", "--config.seeds=0,1"
    assert "4 jobs (2 new)" in call(*args, "--dry_run")[1] and not (tmp_path / "sweep").exists()
    assert "4 jobs (2 new)" in call(*args)[1]
    assert "4 jobs (0 new)" in call(*args)[1]
    assert workdir.read_json(tmp_path / "sweep/study/planned.json") == [0]
    listed = jobs.read(tmp_path / "sweep")
    assert [each.seeds for each in listed] == [(0,), (0,), (1,), (1,)]
    before = analysis.load(begun)
    assert all(job.train(tmp_path / "sweep", each, 1) == 0 for each in listed)
    statuses = [workdir.read_json(jobs.directory(tmp_path / "sweep", each) / "status.json") for each in listed]
    assert [status["compilations"] > 0 for status in statuses] == [False, False, True, True]
    after = analysis.load(tmp_path / "sweep/study")
    key = ["run", "stage", "epoch", "metric"]
    old = after[after.seed == 0].sort_values(key, ignore_index=True)
    assert old[[*key, "value"]].equals(before.sort_values(key, ignore_index=True)[[*key, "value"]])
    both = plasticity_jax.run(config((0, 1)), tmp_path / "main")
    assert small.hashes(analysis.load_result(tmp_path / "sweep/study")) == small.hashes(both)


def test_a_copy_that_was_interrupted_is_made_again(begun, call, tmp_path, monkeypatch):
    args = file(tmp_path), f"--workdir={tmp_path / 'sweep'}", f"--begun={begun}", "--config.seeds=0"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda source, target: (target.mkdir(parents=True), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            call(*args)
    assert not (tmp_path / "sweep/sweep.json").exists() and len(list(tmp_path.rglob("*.part"))) == 1
    assert "2 jobs" in call(*args)[1]
    assert not list(tmp_path.rglob("*.part"))
    assert all((tmp_path / f"sweep/study/jobs/width={width},seeds=0/main/tune/end").is_dir() for width in (4, 8))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda *_: 1 / 0)
        assert call(*args)[0] == 0  # nothing is copied twice


def test_what_does_not_belong_to_it_is_one_line(begun, call, tmp_path):
    args = file(tmp_path), f"--workdir={tmp_path / 'sweep'}"
    commands.refused(call(*args, f"--begun={tmp_path}"), "it holds no study (no config.json)")
    commands.refused(call(*args, f"--begun={begun}", "--config.seeds=0", "--config.window=0.25"), "window was 0.5")
    commands.refused(call(*args, f"--begun={begun}", "--config.seeds=1"), "seed 0 is gone")
    with workdir.lock(begun):
        commands.refused(call(*args, f"--begun={begun}", "--config.seeds=0"), "is in use by")
    two = f"--config={swept.file(tmp_path)}:two"
    commands.refused(call(two, args[1], f"--begun={begun}"), "the sweep has 2 studies")
    assert not list(tmp_path.rglob("sweep.json"))
