"""Networks are loaded from a working directory as they were saved."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import study_config
from plasticity_jax.config import parse
from plasticity_jax.config.plan import unfold
from plasticity_jax.data import batches
from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import programs
from plasticity_jax.storage import networks
from plasticity_jax.training import state
from tests.support import small

NETWORK = state.network_like(small.Net(), (8, 8, 1))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(directory, result) of a grid over two learning rates of the tuning, with one branch from an earlier epoch."""
    directory = tmp_path_factory.mktemp("study")
    config = small.config(seeds=(0, 3), grid=(("stages.tune.optim.learning_rate", (0.1, 0.3)),))
    config.stages.tune.branches["pretrain+tune"].after = "pretrain@1"
    return directory, small.run(config, directory)


def test_every_run_of_the_result_can_be_loaded(study):
    directory, result = study
    for run in result["runs"]:
        _, params, stats = plasticity_jax.load(directory, run["branch"], run["seed"], hparams=run["hparams"])
        assert parameters.sha256(params) == run["params_sha256"]
        assert stats == {}
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))


def test_what_is_loaded_can_be_applied(study):
    directory, result = study
    model, params, stats = plasticity_jax.load(str(directory), "fresh", 3, hparams={"learning_rate": 0.3})
    inputs = batches.normalise(small.TOY.test_images, np.float32(small.TOY.mean), np.float32(small.TOY.std))
    logits, features = model.apply({"params": params, "batch_stats": stats}, inputs, False)
    assert logits.shape == (60, 3) and "penultimate" in features
    (last,) = small.rows(directory, run="fresh,learning_rate=0.3/seed3", metric="test_accuracy", step=18)
    assert 100 * np.mean(np.argmax(logits, -1) == small.TOY.test_labels) == pytest.approx(last["value"])


def test_what_is_kept_can_be_evaluated_again(study):
    directory, _ = study
    which = dict(branch="fresh", seed=3, hparams={"learning_rate": 0.3})
    result = plasticity_jax.evaluate(directory, **which, dataset=small.TOY)
    for name in ("accuracy", "loss"):
        (last,) = small.rows(directory, run="fresh,learning_rate=0.3/seed3", metric=f"test_{name}", step=18)
        assert result[name] == pytest.approx(last["value"], rel=1e-6)
    assert result["images"] == 60
    other = plasticity_jax.evaluate(directory, **which, dataset=small.dataset(test=30, seed=1))
    assert other["images"] == 30 and other["loss"] != result["loss"]


def test_a_stage_on_the_way_and_an_epoch_of_it(study):
    directory, _ = study
    _, end, _ = plasticity_jax.load(directory, "pretrain", 3)
    _, named, _ = plasticity_jax.load(directory, "pretrain", 3, "pretrain")
    _, early, _ = plasticity_jax.load(directory, "pretrain", 3, "pretrain", epoch=1)
    _, other, _ = plasticity_jax.load(directory, "pretrain", 0, "pretrain", epoch=1)
    assert parameters.sha256(end) == parameters.sha256(named)
    assert len({parameters.sha256(tree) for tree in (end, early, other)}) == 3


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (dict(branch="frish", seed=0), "no run of branch 'frish'"),
        (dict(branch="fresh", seed=1), "seed 1"),
        (dict(branch="fresh", seed=0, stage="pretrain"), "stage 'pretrain'"),
        (dict(branch="fresh", seed=0, hparams={"learning_rate": 0.2}), r"\{'learning_rate': 0.2\}"),
        (dict(branch="fresh", seed=0), r"2 runs .*choose one by hparams.*0\.1.*0\.3"),
        (dict(branch="pretrain", seed=0, epoch=2), "does not hold the networks"),
        (dict(branch="fresh", seed=0, hparams={"learning_rate": 0.1}, epoch=1), "does not hold the networks"),
    ],
)
def test_what_is_not_there(study, which, message):
    with pytest.raises(LabError, match=message):
        plasticity_jax.load(study[0], **which)


def test_a_directory_without_a_study(tmp_path):
    with pytest.raises(WorkdirError, match=r"config\.json"):
        plasticity_jax.load(tmp_path, "fresh", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_has_not_ended(tmp_path, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*args):
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(programs.Programs, "advance", crash)
        small.run(small.config(), tmp_path)
    with pytest.raises(LabError, match="stage pretrain has not reached this epoch"):
        plasticity_jax.load(tmp_path, "pretrain", 0)


def test_loading_changes_nothing(study):
    directory, _ = study
    before = sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file())
    plasticity_jax.load(directory, "pretrain", 0)
    assert sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()) == before


def test_a_study_is_the_same_after_its_file():
    config = small.config(grid=(("model.width", (4, 8)), ("stages.tune.reset.modules", ((), ("head",)))))
    config.stages.tune.optim.update(schedule="step", milestones=(0.5, 0.75))
    study = study_config.parse(config)
    restored = networks.restore_study(parse.describe(study))
    assert restored == study
    assert [unfold(pack, study.seeds) for pack in restored.packs] == [unfold(pack, study.seeds) for pack in study.packs]


def test_moments_are_kept_only_where_a_stage_goes_on_with_them():
    config = small.config(seeds=(0,), control="last")
    config.stages.last = small.stage(after="tune/fresh", epochs=1.0, reset={"optimiser": "keep"})
    (pack,) = study_config.parse(config).packs
    groups = unfold(pack, (0,))
    assert [group.name for group in groups] == ["pretrain", "tune", "last"]
    kept = [set(networks.kept(group, groups, networks.states_like(group, NETWORK))) for group in groups]
    assert kept == [{"params", "stats"}, {"params", "stats", "opt"}, {"params", "stats"}]


def test_shapes_of_the_states_have_the_run_axis():
    group = unfold(study_config.parse(small.config()).packs[0], (0, 1))[1]
    like = networks.states_like(group, NETWORK)
    assert like.params["conv"]["kernel"].shape == (4, 3, 3, 1, 4)
    assert like.stats["norm"]["mean"].shape == (4, 4)
    assert like.step.shape == (4,)


def test_a_three_stage_branch_loads_its_last_stage(tmp_path):
    config = small.config(seeds=(0,), control="fresh")
    config.stages.tune.branches = small.branches(warm={"after": "pretrain"})
    config.stages.again = small.stage(epochs=1.0, data={"fraction": 0.3})
    config.stages.again.branches = ConfigDict(
        {"fresh": {"after": "init"}, "warm": {"after": "tune"}, "early": {"after": "pretrain"}}, sort_keys=False
    )
    result = small.run(config, tmp_path)
    assert [run["branch"] for run in result["runs"]] == ["fresh", "warm", "early"]
    assert result["images"] == 16 * (6 + 18 + 3 * 2)
    _, last, _ = plasticity_jax.load(tmp_path, "warm", 0)
    _, middle, _ = plasticity_jax.load(tmp_path, "warm", 0, "tune")
    assert parameters.sha256(last) == small.hashes(result)["warm/seed0"] != parameters.sha256(middle)
