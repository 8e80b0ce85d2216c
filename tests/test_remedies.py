"""Remedies from config to result: numbers on the run axis, resumed studies, and a user's own remedies."""

import jax
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax import study_config
from plasticity_jax.config import parse, restore
from plasticity_jax.configs import base
from plasticity_jax.errors import ConfigError, Preempted
from plasticity_jax.parallel import programs
from tests.support import small


def config(*, strengths=(0.0, 0.05), every=4, **top):
    """A warm start with two remedies; the strength of one varies on the run axis."""
    settings = small.config(seeds=(0,), control="pretrain+tune", **top)
    settings.stages.tune = small.stage(
        epochs=2.0,
        optim=base.optimiser("adam", learning_rate=0.01),
        remedies=base.treated(l2_init={}, redo={"every": every, "threshold": 0.9}),
        branches={"pretrain+tune": {"after": "pretrain"}},
    )
    settings.grid = (("stages.tune.remedies.l2_init.strength", strengths),)
    return settings


def test_branches_of_a_stage_have_remedies_of_their_own():
    settings = small.config(control="plain")
    settings.stages.tune.remedies = base.treated(l2_init={})
    settings.stages.tune.branches = small.branches(
        plain={"after": "pretrain"},
        both={"after": "pretrain", "remedies": base.treated(redo={"every": 7})},
        stronger={"after": "pretrain", "remedies": {"l2_init": {"strength": 0.5}}},
    )
    ((_, plan),) = study_config.parse(settings).packs[0].plans
    named = {stage.branch: [(each.name, dict(each.numbers)) for each in stage.remedies] for stage in plan}
    assert named["plain"] == [("l2_init", {"strength": 0.01})] and named["stronger"] == [("l2_init", {"strength": 0.5})]
    assert named["both"] == [("l2_init", {"strength": 0.01}), ("redo", {"every": 7, "threshold": 0.1})]
    shapes = {stage.branch: stage.shape()["remedies"] for stage in plan if stage.name == "tune"}
    assert shapes["plain"] == shapes["stronger"] == ("regulariser l2_init(strength)",) != shapes["both"]


@pytest.mark.parametrize(
    ("remedies", "line"),
    [
        ({"redoo": {}}, "config.stages.tune.remedies.redoo: there is no such key; did you mean .*remedies.redo"),
        ({"redo": {"threshold": 0.1}}, "remedies.redo: the key every is missing"),
        ({"redo": {"threshold": -1, "every": 1}}, r"remedies.redo.threshold=-1: must be in \[0, inf\)"),
        ({"redo": {"threshold": 1, "every": 0}}, "remedies.redo.every=0: must be at least 1"),
        ({"redo": {"threshold": 1, "every": 1, "tau": 1}}, "remedies.redo.tau: there is no such key"),
        (
            {"mine:act": {"scale": 1}},
            "remedies.mine:act: say when it acts, as moment=regulariser|update|periodic|start",
        ),
        ({"mine:act": {"moment": "periodic", "scale": 1}}, "remedies.mine:act: the key every is missing"),
        (("redo",), "must be a group of remedies by name"),
    ],
)
def test_a_wrong_remedy_is_one_line(remedies, line):
    settings = small.config()
    with settings.ignore_type():
        settings.stages.tune.remedies = remedies
    with pytest.raises(ConfigError, match=line):
        study_config.parse(settings)


@pytest.mark.parametrize(
    ("name", "line"), [("redo", "names no units that could be replaced"), ("infer", "the network returns no features")]
)
def test_a_network_without_what_a_remedy_works_on_is_refused(name, line, tmp_path):
    found = small.single(remedies=base.treated(**{name: {}}))
    with pytest.raises(ConfigError, match=f"stage train: remedies.{name}: .*{line}"):
        small.run(found, tmp_path, model=small.Net(), dry_run=True)


def test_a_study_with_remedies_is_read_back_as_it_was():
    study = study_config.parse(config())
    assert restore.restore_study(parse.describe(study)) == study
    described = parse.describe(study)
    for _, plan in described["packs"][0]["plans"]:
        for stage in plan:
            del stage["remedies"], stage["optim"]["rho"]
    del described["packs"][0]["model"]["activation"], described["packs"][0]["model"]["dropout"]
    (pack,) = restore.restore_study(described).packs  # of a version that had none of these
    assert all(stage.remedies == () and stage.optim.rho == 0 for _, plan in pack.plans for stage in plan)
    assert (pack.model.activation, pack.model.dropout) == ("relu", 0.0)


def shrink_towards_zero(network, now, *, scale):
    return network._replace(params=jax.tree.map(lambda leaf: scale * leaf, network.params))


OWN = """
import jax
from plasticity_jax.training.remedies.interface import Remedy

def pull(seen, *, strength):
    return strength * sum((leaf ** 2).sum() for leaf in jax.tree.leaves(seen.params)) * seen.memory

pulling = Remedy(pull, lambda network, begun: network.params["head"]["bias"].sum() * 0 + 1)
"""


@pytest.mark.slow
def test_own_remedies_are_given_from_python_and_named_in_the_config(tmp_path, monkeypatch):
    (tmp_path / "my_remedies.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    settings = small.single(epochs=1.0, remedies={})
    settings.seeds, settings.strategy = (0,), "loop"
    with settings.unlocked():
        settings.stages.train.remedies = {
            "vanish": {"moment": "periodic", "every": 6, "scale": 0.0},
            "my_remedies:pulling": {"moment": "regulariser", "strength": 0.1},
        }
    small.run(settings, tmp_path / "run", remedies={"vanish": shrink_towards_zero})
    _, params, _ = plasticity_jax.load(tmp_path / "run", "train", 0)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(params))  # of 6 steps
    with settings.unlocked():
        settings.stages.train.remedies = {"vanish": {"moment": "update", "factor": 0.0}}
    with pytest.raises(ConfigError, match="remedies.vanish: takes the numbers scale .*, and is given factor"):
        small.run(settings, tmp_path / "other", remedies={"vanish": shrink_towards_zero})


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return small.hashes(small.run(config(), tmp_path_factory.mktemp("both")))


def test_a_remedys_number_rides_the_run_axis_and_a_run_is_as_alone(both, tmp_path):
    assert list(both) == [f"pretrain+tune,strength={x}/seed0" for x in (0.0, 0.05)] and len(set(both.values())) == 2
    assert len(study_config.parse(config()).packs) == 1
    alone = small.run(config(strengths=(0.05,)), tmp_path)
    assert set(small.hashes(alone).values()) == {both["pretrain+tune,strength=0.05/seed0"]}


def stopped_once(settings, directory):
    """The hashes of a study that was killed in the middle of its last stage and resumed."""
    real, calls = programs.Programs.advance, []

    def stopping(self, stage, *rest):
        calls.append(stage.name)
        if calls.count("tune") == 5:
            raise KeyboardInterrupt
        return real(self, stage, *rest)

    with pytest.MonkeyPatch.context() as eager, pytest.MonkeyPatch.context() as patch:
        eager.setattr("plasticity_jax.runner.dispatch.CALL_SECONDS", 0.0)
        eager.setattr("plasticity_jax.runner.saver.CHECKPOINT_SHARE", 0)
        patch.setattr(programs.Programs, "advance", stopping)
        with pytest.raises((KeyboardInterrupt, Preempted)):
            small.run(settings, directory)
        patch.undo()
        assert list(directory.glob("main/tune/checkpoints/*")) and not list(directory.glob("main/tune/end"))
        return small.hashes(small.run(settings, directory))


def test_a_study_with_remedies_goes_on_where_it_was_stopped(both, tmp_path):
    """After units were replaced; the first weights are read from the checkpoint."""
    assert stopped_once(config(checkpoint_seconds=0.0), tmp_path) == both


@pytest.mark.long
def test_all_remedies_at_once_go_on_where_they_were_stopped_and_are_as_alone(tmp_path):
    numbers = {name: {"every": 4} if base.REMEDIES[name].get("every") == 1000 else {} for name in base.REMEDIES}

    def every(**given):
        settings = config(**given)
        settings.model.injected = ("layer1", "head")
        settings.stages.tune.remedies = base.treated(**numbers)
        return settings

    unbroken = small.hashes(small.run(every(), tmp_path / "unbroken"))
    assert stopped_once(every(checkpoint_seconds=0.0), tmp_path / "stopped") == unbroken
    alone = small.hashes(small.run(every(strengths=(0.05,)), tmp_path / "alone"))
    assert set(alone.values()) == {unbroken["pretrain+tune,strength=0.05/seed0"]}


@pytest.mark.slow
def test_remedies_at_the_start_of_a_stage_see_its_data(tmp_path):
    """With a negligible learning rate, the network at the end of a stage is that at its start."""
    settings = small.config(seeds=(0,), control="dash", strategy="loop")
    settings.stages.tune = small.stage(
        epochs=1.0,
        optim=base.optimiser("sgd", learning_rate=1e-30),
        branches={
            "dash": {"after": "pretrain", "remedies": base.treated(dash={"least": 0.0})},
            "fire": {"after": "pretrain", "remedies": base.treated(fire={})},
        },
    )
    small.run(settings, tmp_path)
    warm, dash, fire = (plasticity_jax.load(tmp_path, name, 0)[1] for name in ("pretrain", "dash", "fire"))
    ratio = dash["layer1"]["kernel"] / warm["layer1"]["kernel"]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=1e-4, atol=1e-5)
    assert np.all(ratio > -1e-6) and np.all(ratio < 1) and len(np.unique(ratio.round(4))) > 3
    q = fire["layer1"]["kernel"] / np.sqrt(8 / 64)
    np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-3)


@pytest.mark.long  # by day test_starts
def test_injection_keeps_the_old_weights_beside_the_new_ones(tmp_path):
    settings = small.config(seeds=(0,), control="injection", strategy="loop")
    settings.model.injected = ("layer1", "head")
    settings.stages.tune = small.stage(
        epochs=1.0,
        optim=base.optimiser("sgd", learning_rate=1e-30),
        branches={"injection": {"after": "pretrain", "remedies": base.treated(plasticity_injection={})}},
    )
    small.run(settings, tmp_path)
    warm = plasticity_jax.load(tmp_path, "pretrain", 0)[1]
    params, stats = plasticity_jax.load(tmp_path, "injection", 0)[1:3]
    jax.tree.map(np.testing.assert_array_equal, stats["injected_old"]["params"], warm)
    jax.tree.map(np.testing.assert_array_equal, stats["injected_drawn"]["params"], params)
    assert np.any(params["layer1"]["kernel"] != warm["layer1"]["kernel"])
