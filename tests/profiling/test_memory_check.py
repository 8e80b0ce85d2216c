"""A plan that does not fit into memory is refused before training, with the number of runs that fit."""

import itertools
import re

import pytest

from plasticity_jax import experiment, main, study_config
from plasticity_jax.configs import base
from plasticity_jax.errors import RoomError
from plasticity_jax.parallel import memory
from plasticity_jax.profiling import memory_check
from plasticity_jax.runner import prepare
from plasticity_jax.runner.parts import complete
from plasticity_jax.storage import workdir
from tests.support import commands, small

IMAGES = small.TOY.train_images.nbytes + small.TOY.test_images.nbytes


def wide(**fields):
    """A study of eight seeds whose networks take most of the memory."""
    config = small.config(**{"seeds": tuple(range(8)), "images": "device"} | fields)
    config.model.width = 64
    for stage in config.stages.values():
        stage.epochs = 1.0
    return config


def give(monkeypatch, spare):
    """Make every device have `spare` free bytes, or report none."""
    monkeypatch.setattr(memory, "free", lambda device: spare)


def needs(config, directory, monkeypatch):
    """The memory needs of the programs of a study."""
    collected, whole = [], memory_check.needs_of

    def collect(*args):
        collected.extend(whole(*args))
        return collected

    with monkeypatch.context() as patch:
        patch.setattr(memory_check, "needs_of", collect)
        give(patch, IMAGES)
        with pytest.raises(RoomError, match="not even one would fit"):
            small.run(config, directory)
    return collected


def limit(listed, seeds, strategy):
    """Free bytes of a device for `seeds` of eight seeds, and not for one more."""

    def total(seeds):
        return max(need.total(need.runs // 8 * seeds, strategy) for need in listed)

    return (total(seeds) + total(seeds + 1)) // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        "loop",  # whose programs serve any number
        pytest.param("map", marks=pytest.mark.long),
        pytest.param("vmap", marks=pytest.mark.long),
        pytest.param("cores", marks=pytest.mark.long),
    ],
)
def test_the_largest_number_that_is_named_fits_and_one_more_does_not(strategy, tmp_path, monkeypatch, capsys):
    listed = needs(wide(strategy=strategy), tmp_path, monkeypatch)
    give(monkeypatch, limit(listed, 3, strategy))
    for count in (8, 4):
        with pytest.raises(RoomError) as refused:
            small.run(wide(strategy=strategy, seeds=tuple(range(count))), tmp_path)
        line = str(refused.value)
        assert f"stage tune: {2 * count} runs need" in line and f"at most 3 of {count} seeds" in line
        assert int(re.search(r"so (\d+) would fit", line)[1]) in (6, 7)
        assert "\n" not in line
        assert workdir.read_json(tmp_path / "status.json")["error"] == line
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    capsys.readouterr()
    result = small.run(wide(strategy=strategy, seeds=(0, 1, 2)), tmp_path)  # in the directory that was refused
    assert result["status"] == "finished"
    told = re.search(r"memory: (\S+ .B) per run, (\S+ .B) in all, of (\S+ .B)", capsys.readouterr().err)
    per_run = workdir.read_json(tmp_path / "status.json")["bytes_per_run"]["main"]
    assert memory.text(per_run) == told[1] and per_run == pytest.approx(
        max(need.line.per_run for need in listed), rel=0.1
    )


@pytest.mark.long
def test_turns_are_a_remedy_where_they_would_fit(tmp_path, monkeypatch):
    config = wide(strategy="vmap")
    config.stages.tune.batch_size = 96
    config.stages.pretrain.batch_size = 48
    config.model.depth = 4
    listed = needs(config, tmp_path, monkeypatch)
    mapped = max(need.total(need.runs, "map") for need in listed)
    assert mapped < max(need.total(need.runs, "vmap") for need in listed)
    give(monkeypatch, mapped + 1)
    with pytest.raises(RoomError, match=r"--config\.strategy=map \(about "):
        small.run(config, tmp_path)
    config.strategy = "map"
    assert small.run(config, tmp_path)["status"] == "finished"


def two(strategy):
    """A study of two branches of one seed."""
    config = wide(strategy=strategy, seeds=(0,))
    del config.stages.pretrain
    config.stages.tune.branches = small.branches(fresh={"after": "init"}, other={"after": "init"})
    return config


@pytest.mark.long
def test_turns_are_no_remedy_where_not_even_one_would_fit(tmp_path, monkeypatch):
    give(monkeypatch, IMAGES)
    with pytest.raises(RoomError) as refused:
        small.run(two("vmap"), tmp_path)
    assert "so not even one would fit; take a smaller" in str(refused.value)


@pytest.mark.slow
def test_no_remedy_is_named_that_would_not_help(tmp_path, monkeypatch):
    listed = needs(two("map"), tmp_path, monkeypatch)
    need = max(listed, key=lambda need: need.total(need.runs, "map"))
    give(monkeypatch, (need.line(1) + need.line(2)) // 2)
    with pytest.raises(RoomError, match="2 runs need .* so 1 would fit; take fewer branches or grid points, or a sm"):
        small.run(two("map"), tmp_path)


def test_images_that_are_too_many(tmp_path, monkeypatch):
    give(monkeypatch, IMAGES - 1)
    with pytest.raises(
        RoomError, match=r"images of toy need 9\.98 kB of memory on the device, which has 9\.98 kB left"
    ):
        small.run(small.config(images="device"), tmp_path)


@pytest.mark.parametrize(
    ("spare", "place"), [(-1, "host"), pytest.param(1000, "host", marks=pytest.mark.slow), (None, "device")]
)
def test_auto_puts_images_where_all_runs_fit(spare, place, tmp_path, monkeypatch):
    """With `spare` free bytes, or with plenty; and they stay where they were put."""
    many = small.dataset(train=20_000)
    images = many.train_images.nbytes + many.test_images.nbytes
    config = small.config(train_images=96, seeds=(0,))
    give(monkeypatch, 10 * images if spare is None else images + spare)
    if spare == 1000:
        with pytest.raises(RoomError, match=r"take --config\.images=host"):
            small.run(small.config(images="device", train_images=96, seeds=(0,)), tmp_path, dataset=many)
    small.run(config, tmp_path, dataset=many)
    assert workdir.read_json(tmp_path / "environment.json")["choices"]["main"]["images"] == place
    give(monkeypatch, 10 * images)
    (tmp_path / "result.json").unlink()
    small.run(config, tmp_path, dataset=many)
    assert workdir.read_json(tmp_path / "environment.json")["choices"]["main"]["images"] == place


def test_a_device_that_does_not_tell_is_trusted(tmp_path, monkeypatch, capsys):
    give(monkeypatch, None)
    assert small.run(small.config(), tmp_path)["status"] == "finished"
    assert "memory:" not in capsys.readouterr().err
    assert workdir.read_json(tmp_path / "status.json")["bytes_per_run"] == {"main": None}


def files(directory):
    skipped = (".lock", "status.json")
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name not in skipped}


@pytest.mark.slow
def test_a_started_directory_that_is_refused_loses_nothing(tmp_path, monkeypatch):
    config = small.config()
    walk = experiment.stage_loop.walk

    def killed(group, context):
        if group.name == "tune":
            raise KeyboardInterrupt
        return walk(group, context)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment.stage_loop, "walk", killed)
        small.run(config, tmp_path / "stopped")
    before = files(tmp_path / "stopped")
    with monkeypatch.context() as patch, pytest.raises(RoomError, match="stage tune: 4 runs need"):
        give(patch, IMAGES)
        small.run(config, tmp_path / "stopped")
    assert files(tmp_path / "stopped") == before
    result = small.run(config, tmp_path / "stopped")
    assert small.hashes(result) == small.hashes(small.run(config, tmp_path / "whole"))
    give(monkeypatch, IMAGES)
    assert small.hashes(small.run(config, tmp_path / "stopped")) == small.hashes(result)  # finished: nothing to refuse


@pytest.mark.long  # by day the same line is looked at from Python
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_command_refuses_with_one_line(tmp_path, capsys):
    """A network of terabytes, on any machine."""
    flags = ["--config=configs/multistage.py:digits", f"--workdir={tmp_path / 'new'}", "--config.model.name=mlp"]
    flags += ["--config.model.depth=2", "--config.model.width=1000000", "--config.diagnostics=weight_norm"]
    flags += ["--config.strategy=loop"]
    done = commands.call(main.main, *flags, capture=capsys)
    assert done.status == 1
    *_, last = done.err.strip().splitlines()
    assert re.search(r"stage tune: 16 runs need \d+ TB of memory .* so not even one would fit; take a smaller", last)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {".lock", "status.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "model"),
    [
        ("map", "mlp"),
        *(pytest.param(name, "resnet", marks=pytest.mark.long) for name in ("map", "vmap", "cores")),
    ],
)
def test_beginning_a_stage_takes_no_more_than_training(strategy, model):
    """With Adam: per run, and for all runs if there are as many activations as in a residual network."""
    config = small.config(strategy=strategy, seeds=tuple(range(4)))
    config.model.update(name=model, depth=1, width=8 if model == "resnet" else 64)
    for stage in config.stages.values():
        stage.optim = base.optimiser("adam")
    study = study_config.parse(config)
    compute = prepare.compute(study.packs[0], study, small.TOY, complete(None, study))
    generated = memory_check.needs_of(compute.timetables["tune"], compute)
    needs = {need.kind: need for need in itertools.islice(generated, 2)}
    begin, advance = needs["begin"], needs["advance"]
    assert 0 < begin.line.per_run <= advance.line.per_run
    if model == "resnet":
        assert begin.total(begin.runs, strategy) <= advance.total(begin.runs, strategy)
