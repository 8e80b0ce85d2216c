"""Configs become studies; a malformed one becomes one line that names the place."""

import dataclasses
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from plasticity_jax import models, study_config
from plasticity_jax.config import columns, parse, spec, validate
from plasticity_jax.config.plan import unfold
from plasticity_jax.config.restore import restore_study
from plasticity_jax.configs import base, multistage
from plasticity_jax.data import subsets
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.errors import ConfigError
from plasticity_jax.training import optimizers
from tests.support import tiny

FRESH = "stages.tune.branches.fresh"
WARM = "stages.tune.branches.pretrain+tune"


def values(**changes) -> dict:
    """Values of Figure 1 as keywords, some of them changed; `__` stands for the dot in a path."""
    return at({path.replace("__", "."): value for path, value in changes.items()})


def at(changes: dict) -> dict:
    result = validate.plain(multistage.get_config())
    for path, value in changes.items():
        *groups, key = path.split(".")
        holder = result
        for group in groups:
            holder = holder[group]
        holder[key] = value
    return result


def refused(changes: dict, own=()) -> str:
    with pytest.raises(ConfigError) as caught:
        study_config.parse(at(changes), own)
    return str(caught.value)


def plan(study: spec.Study, pack: int = 0, point: int = 0) -> dict[str, spec.Stage]:
    return {stage.branch: stage for stage in study.packs[pack].plans[point][1]}


# Values of the configs.


def test_figure_1_at_the_scale_of_the_paper():
    study = study_config.parse(multistage.get_config())
    (pack,) = study.packs
    ((hparams, stage_records),) = pack.plans
    assert (pack.name, hparams) == ("main", ())
    assert pack.model == spec.Model("resnet", 2, 64, "imagenet", "batch", "float32", "relu", 0.0, (), False)
    assert (study.dataset, study.seeds, study.control, study.window) == ("cifar10", (0, 1, 2, 3, 4), "fresh", 0.2)
    assert [(s.name, s.branch, s.after, s.epochs, s.data.fraction) for s in stage_records] == [
        ("pretrain", "pretrain", "init", 350.0, 0.5),
        ("tune", "fresh", "init", 500.0, 1.0),
        ("tune", "pretrain+tune", "pretrain", 500.0, 1.0),
    ]
    for stage in stage_records:
        assert (stage.optim.name, stage.optim.learning_rate, stage.optim.eps) == ("adam", 1e-3, 1e-8)
        assert (stage.batch_size, stage.augment, stage.eval_every, stage.eval_tail) == (128, "none", 5, 1)
        assert (stage.reset.modules, stage.reset.optimiser) == ((), "all")


@pytest.mark.parametrize("arg", [",".join(order) for order in itertools.permutations(["small", "optimiser=momentum"])])
def test_arguments_combine_in_any_order(arg):
    study = study_config.parse(multistage.get_config(arg))
    assert study.train_images == 5000
    for stage in plan(study).values():
        assert (stage.optim.name, stage.optim.momentum, stage.optim.learning_rate) == ("sgd", 0.9, 0.03)


@pytest.mark.parametrize("arg", ["", "small", "digits", "smoke"])
@pytest.mark.parametrize("name", base.OPTIMISERS)
def test_every_preset_and_optimiser_parses(arg, name):
    study = study_config.parse(multistage.get_config(f"{arg},optimiser={name}"))
    assert [group.name for group in unfold(study.packs[0], study.seeds)] == ["pretrain", "tune"]


def test_smoke_is_the_small_plan_cut_to_a_few_steps():
    small, smoke = (study_config.parse(multistage.get_config(arg)) for arg in ("small", "smoke"))
    assert smoke.test_images == 1000
    assert smoke.packs[0].model == small.packs[0].model
    assert {(s.steps, s.eval_every, s.eval_tail) for s in plan(smoke).values()} == {(30, 0, 0)}


@pytest.mark.parametrize(
    ("arg", "line"),
    [
        ("smal", "did you mean small?"),
        ("optimiser=adm", "did you mean adam?"),
        ("optimizer=adam", "did you mean optimiser?"),
        ("optimiser", "did you mean optimiser=..?"),
        ("small,digits", "small and digits exclude each other"),
    ],
)
def test_wrong_arguments(arg, line):
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        multistage.get_config(arg)


def test_parse_arg_takes_the_first_choice_by_default():
    assert base.parse_arg("", ("small",), stem=("a", "b"), k=("1",)) == ("", {"stem": "a", "k": "1"})
    assert base.parse_arg(" stem=b , small", ("small",), stem=("a", "b")) == ("small", {"stem": "b"})
    with pytest.raises(ConfigError, match="none can be given"):
        base.parse_arg("small", ())


def test_stage_and_optimiser_know_their_keys():
    assert base.stage(data={"fraction": 0.25}, epochs=3).data.fraction == 0.25
    for wrong in (
        lambda: base.stage(epoch=3),
        lambda: base.stage(data={"frction": 1.0}),
        lambda: base.optimiser("adam", lr=1.0),
        lambda: base.optimiser("adagrad"),
    ):
        with pytest.raises(ConfigError):
            wrong()


def test_two_configs_share_nothing():
    first, second = base.stage(), base.stage()
    first.data.fraction = 0.5
    assert second.data.fraction == 1.0
    branches = {"a": {"after": "init"}}
    base.stage(branches=branches).branches.a.after = "x"
    assert branches == {"a": {"after": "init"}}


def test_recipes_are_those_of_the_pools():
    labels = list(range(10)) * 10
    for recipe in spec.RECIPES:
        data = dataclasses.replace(tiny.DATA, recipe=recipe, fraction=0.5, splits=2)
        assert len(subsets.pool(data, 0, labels, 10).indices)


def test_every_choice_is_accepted():
    for path, choices in {
        "model.name": models.MODELS,
        "model.stem": models.STEMS,
        "model.norm": models.NORMS,
        "model.activation": models.ACTIVATIONS,
        "model.dtype": models.DTYPES,
        "stages.tune.data.recipe": spec.RECIPES,
        "stages.tune.data.tasks.change": spec.CHANGES,
        "stages.tune.reset.statistics": spec.KEEP,
        "strategy": ("auto", "map", "vmap", "loop"),
    }.items():
        for choice in choices:
            study_config.parse(at({path: choice}))
    for name in optimizers.OPTIMISERS:
        study_config.parse(at({"stages.pretrain.optim.name": name}))
    assert study_config.parse(values(diagnostics=tuple(DIAGNOSTICS))).diagnostics == tuple(DIAGNOSTICS)


# Branches.


def test_a_stage_without_branches_is_its_own_branch():
    found = study_config.parse(at({"stages.tune.branches": {}, "stages.tune.after": "pretrain"}))
    assert (plan(found)["tune"].after, plan(found)["tune"].name) == ("pretrain", "tune")


def test_a_branch_changes_what_it_names_and_nothing_else():
    change = {"after": "pretrain", "optim": {"learning_rate": 1e-2}, "reset": {"modules": ("head",)}}
    branches = plan(study_config.parse(at({WARM: change})))
    assert branches["pretrain+tune"].optim.learning_rate == 1e-2
    assert branches["pretrain+tune"].reset.modules == ("head",)
    assert branches["pretrain+tune"].reset.shrink == 0.0
    assert branches["fresh"].optim.learning_rate == 1e-3
    assert branches["fresh"].reset.modules == ()


def test_branches_come_as_written():
    config_ = multistage.get_config()
    config_.stages.tune = base.stage(
        branches={"z": {"after": "pretrain"}, "fresh": {"after": "init"}, "a": {"after": "pretrain"}}
    )
    assert list(plan(study_config.parse(config_))) == ["pretrain", "z", "fresh", "a"]


# Values and their types.


def test_whole_numbers_do_for_fractions():
    study = study_config.parse(at({"stages.tune.epochs": 5, "window": 1, "stages.tune.optim.learning_rate": 1}))
    assert repr(plan(study)["fresh"].epochs) == "5.0"
    assert repr(study.window) == "1.0"


def test_lists_do_for_tuples_and_words_may_be_joined():
    study = study_config.parse(
        at(
            {
                "seeds": [3, 1],
                "diagnostics": ("weight_norm,effective_rank",),
                "stages.tune.reset.modules": ["head, stem"],
            }
        )
    )
    assert study.seeds == (3, 1)
    assert study.diagnostics == ("weight_norm", "effective_rank")
    assert plan(study)["fresh"].reset.modules == ("head", "stem")


MALFORMED = {
    "name": [3, None],
    "dataset": ["", " ", None, 3],
    "data_dir": [None, 1],
    "holdout": [1, -0.1, "0.2"],
    "holdout_seed": [-1, 0.5],
    "test_split": ["", None],
    "resize": [-1, 0.5],
    "image_size": [-1, 0.5],
    "images": ["gpu", "", None],
    "train_images": [-1, 1.5, True, "10", 2**31],
    "validation_images": [-1],
    "test_images": [-1, 1.0],
    "seeds": [(), (0, 0), (-1,), (0.5,), ("a",), 3, None, (True,), (2**31,)],
    "window": [0, -0.1, 1.01, "1", float("nan"), True],
    "control": ["", "tune", "pretrain"],
    "diagnostics": ["weight_norm", ("weight_nrm",), ("weight_norm", "weight_norm"), (3,)],
    "train_eval_images": [-1, True, None],
    "mean": [(0.5, "a"), 0.5],
    "std": [(0.5, 0.0), (float("nan"),)],
    "eval_batch": [0, "500"],
    "matmul_precision": ["bfloat16", "", None],
    "strategy": ["fast", "", None],
    "checkpoint_seconds": [-1, float("inf"), "30"],
    "model": [3, {}, None],
    "model.name": ["resnt", "", 1],
    "model.depth": [0, 1.0],
    "model.width": [0, "64", 10**400],
    "model.stem": ["cfar"],
    "model.norm": [None, "bath"],
    "model.dtype": ["float16"],
    "model.activation": [None, "rely"],
    "model.dropout": [-0.1, 1.0],
    "model.injected": ["", ("head", "head"), (1,)],
    "model.zero_scale": [0, "yes"],
    "stages": [{}, None, ()],
    "stages.tune": [{}, 7],
    "stages.tune.branches": [None, ("fresh",)],
    FRESH: [None, "init"],
    "stages.tune.epochs": [0, -1, float("inf"), float("nan"), "5", 10**400],
    "stages.tune.steps": [-1, 3.0],
    "stages.tune.until_accuracy": [-0.1, 99],
    "stages.tune.batch_size": [0, -128, 12.8, True],
    "stages.tune.micro_batch": [-1, 7, 256],
    "stages.tune.augment": [0, True, "flip"],
    "stages.tune.trained": [(), "head", ("head", "head")],
    "stages.tune.ema": [1, -0.1],
    "stages.tune.eval_every": [-1, 0.5],
    "stages.tune.eval_tail": [-1],
    "stages.tune.measure_steps": [1, (-1,), (1, 1), ("1",)],
    "stages.tune.measure_every": [-1, 0.5],
    "instruments": ["noise", ("noize",), ("noise", "noise"), (3,)],
    "measure_images": [0, 1.5],
    "stages.tune.data": [None],
    "stages.tune.data.member": [-1, 1.0],
    "stages.tune.data.classes": [(3,), (5, 2), (1, 2, 3), (-1, 2), 5],
    "stages.tune.data.shuffle": [1, "no"],
    "stages.tune.data.patch": [None, 0.8],
    "stages.tune.data.patch.share": [1.1],
    "stages.tune.data.patch.size": [0],
    "stages.tune.data.patch.shared": [-1],
    "stages.tune.data.patch.own": [-0.1],
    "stages.tune.data.patch.patterns": [0],
    "stages.tune.data.patch.alone": [2],
    "stages.tune.data.patch.stretch": [-1],
    "stages.tune.data.recipe": ["blnd", ""],
    "stages.tune.data.fraction": [0, 1.5, "half"],
    "stages.tune.data.splits": [0],
    "stages.tune.data.part": [0, 2],
    "stages.tune.data.uniform": [-0.1, 1.1],
    "stages.tune.data.gamma": [0, 1],
    "stages.tune.data.replacement": [0],
    "stages.tune.data.label_noise": [-0.1, 2],
    "stages.tune.data.deficit": ["blurr", "", True],
    "stages.tune.data.tasks": [None, "labels"],
    "stages.tune.data.tasks.change": ["pixel", ""],
    "stages.tune.data.tasks.epochs": [0, 1.5],
    "stages.tune.optim.name": ["adm"],
    "stages.tune.optim.learning_rate": [0, -1e-3, float("inf"), "1e-3", None],
    "stages.tune.optim.momentum": [1, -0.1, 0.9],
    "stages.tune.optim.nesterov": [1, True],
    "stages.tune.optim.b1": [1],
    "stages.tune.optim.b2": [-0.1],
    "stages.tune.optim.eps": [0],
    "stages.tune.optim.weight_decay": [-1],
    "stages.tune.optim.clip_norm": [-1],
    "stages.tune.optim.rho": [-1],
    "stages.tune.optim.schedule": ["cos"],
    "stages.tune.optim.warmup": [1.1],
    "stages.tune.optim.decayed": ["", "kernel"],
    "stages.tune.optim.reference_batch": [-1, 0.5],
    "stages.tune.label_smoothing": [-0.1, 1.0],
    "stages.tune.activation_noise": [-0.1, float("inf")],
    "stages.tune.optim.milestones": [(0,), (1,), 0.5, ("0.5",), (0.5,)],
    "stages.tune.optim.decay": [-0.1, 1.1],
    "stages.tune.optim.detector": [None, "window"],
    "stages.tune.optim.detector.name": ["windw"],
    "stages.tune.optim.detector.window": [0, 2.5],
    "stages.tune.optim.detector.rtol": [-0.1, 1],
    "stages.tune.optim.detector.atol": [-1],
    "stages.tune.optim.detector.z": [-1],
    "stages.tune.optim.detector.patience": [-1],
    "stages.tune.optim.detector.least": [-1],
    "stages.tune.optim.detector.keep": [0, 1.5],
    "stages.tune.optim.detector.capacity": [3],
    "stages.tune.optim.detector.significance": [0, 1],
    "stages.tune.optim.detector.end_last": [1],
    "stages.tune.reset.modules": ["head", (1,), ("head", "head"), ("",)],
    "stages.tune.reset.shrink": [-1, float("nan")],
    "stages.tune.reset.perturb": [-1, "1"],
    "stages.tune.reset.statistics": ["none"],
    "stages.tune.reset.optimiser": [""],
    "stages.tune.reset.function": ["mine", None],
    "stages.tune.after": ["", None],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, many in MALFORMED.items() for value in many])
def test_a_wrong_value_is_named(path, value):
    message = refused({path: value})
    assert message.startswith(f"config.{path}")
    assert "\n" not in message


def test_every_value_of_a_config_has_a_wrong_one_above():
    leaves = {path for path, value in validate.paths(values()) if not isinstance(value, dict)}
    unchecked = {path.replace("pretrain", "tune", 1) for path in leaves if path != "grid" and "branches." not in path}
    assert unchecked <= set(MALFORMED)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("stages.tune.batch_size", 0, "config.stages.tune.batch_size=0: must be at least 1"),
        ("seeds", (0, -1), "config.seeds[1]=-1: must be at least 0"),
        ("seeds", (0, 0), "config.seeds=(0, 0): must not repeat a value"),
        ("window", 2, "config.window=2: must be in (0, 1]"),
        ("stages.tune.epochs", 0, "config.stages.tune.epochs=0.0: must be above 0, or give steps"),
        ("model.stem", "cfar", "config.model.stem='cfar': choose one of cifar, imagenet (did you mean cifar?)"),
        ("control", "frsh", "config.control='frsh': choose one of fresh, pretrain+tune"),
        ("stages.tune.data.part", 2, "config.stages.tune.data.part=2: must be at most data.splits=1"),
    ],
)
def test_the_line_says_what_is_right(path, value, line):
    assert refused({path: value}) == line


@pytest.mark.parametrize(
    ("path", "value"),
    [("data.patch.share", 0.5), ("data.label_noise", 0.2), ("reset.function", "own_resets:zero")],
)
def test_a_stream_of_tasks_has_no_other_labels_and_no_own_reset(path, value):
    stream = {"stages.tune.data.tasks.change": "labels", f"stages.tune.{path}": value}
    assert refused(stream).startswith("config.stages.tune.data.tasks.change='labels': ")
    study_config.parse(at(stream | {"stages.tune.data.tasks.change": "none"}))


def test_a_remedy_that_acts_once_is_none_of_a_stream():
    stream = {"stages.tune.data.tasks.change": "pixels", "stages.tune.remedies": base.treated(dash={})}
    assert "dash acts only once" in refused(stream)


def test_steps_do_instead_of_epochs():
    study = study_config.parse(at({"stages.tune.epochs": 0, "stages.tune.steps": 10}))
    assert plan(study)["fresh"].steps == 10


def test_schedules_and_milestones_belong_together():
    where = "stages.tune.optim"
    assert "needs some" in refused({f"{where}.schedule": "step"})
    assert "increase" in refused({f"{where}.schedule": "step", f"{where}.milestones": (0.5, 0.25)})
    assert "no other takes any" in refused({f"{where}.milestones": (0.5,)})
    for schedule, milestones in [("step", (0.25, 0.5)), ("autodecay", (0.25, 0.5)), ("autodecay", ())]:
        study = study_config.parse(at({f"{where}.schedule": schedule, f"{where}.milestones": milestones}))
        assert plan(study)["fresh"].optim.milestones == milestones


@pytest.mark.parametrize(
    ("place", "key", "meant"),
    [
        ("", "seed", "seeds"),
        ("model.", "wdith", "width"),
        ("stages.tune.", "batchsize", "batch_size"),
        ("stages.tune.optim.", "lerning_rate", "learning_rate"),
        ("stages.pretrain.reset.", "optimizer", "optimiser"),
        (f"{WARM}.", "aftr", "after"),
    ],
)
def test_an_unknown_key_names_the_nearest(place, key, meant):
    line = f"config.{place}{key}: there is no such key; did you mean config.{place}{meant}?"
    assert refused({place + key: 1}) == line


def test_an_unknown_key_deep_in_a_branch():
    message = refused({FRESH: {"after": "init", "optim": {"momentun": 0.9}}})
    assert (
        message == f"config.{FRESH}.optim.momentun: there is no such key; did you mean config.{FRESH}.optim.momentum?"
    )
    assert f"config.{FRESH}.branches" in refused({FRESH: {"branches": {}}})


def test_a_wrong_value_in_a_branch_is_blamed_on_the_branch():
    message = refused({FRESH: {"after": "init", "data": {"fraction": 0}}})
    assert message == f"config.{FRESH}.data.fraction=0: must be in (0, 1]"


@pytest.mark.parametrize("path", [path for path, _ in validate.paths(values()) if "branches." not in path])
def test_every_key_has_to_be_there(path):
    broken = values()
    *groups, key = path.split(".")
    holder = broken
    for group in groups:
        holder = holder[group]
    del holder[key]
    if path in ("stages.tune", "stages.pretrain"):
        broken["stages"].clear()
    with pytest.raises(ConfigError, match=rf"{'.'.join(['config', *groups])}\b.*({key} is missing|at least one)"):
        study_config.parse(broken)


@pytest.mark.parametrize("wrong", [None, 3, "configs/multistage.py", []])
def test_a_config_has_to_be_one(wrong):
    with pytest.raises(ConfigError, match="must be a ConfigDict"):
        study_config.parse(wrong)


def test_an_empty_placeholder_has_to_be_given():
    config_ = multistage.get_config()
    config_.model = ConfigDict({**config_.model, "width": config_dict.required_placeholder(int)})
    with pytest.raises(ConfigError, match="config.model.width: must be given"):
        study_config.parse(config_)
    config_.model.width = 3
    assert study_config.parse(config_).packs[0].model.width == 3


@pytest.mark.parametrize("name", ["init", "a/b", "a b", "a@3", "", ".", "..", "+a", "ä", "a\n"])
def test_unsafe_names(name):
    stage = values()["stages"]["tune"]
    assert f"config.stages.{name}" in refused({"stages": {name: stage}})
    assert f"config.stages.tune.branches.{name}" in refused({"stages.tune.branches": {name: {}}})


@pytest.mark.parametrize("name", ["fresh", "lr=0.1", "a+b", "reset-last_4", "0"])
def test_safe_names(name):
    study = study_config.parse(at({"stages.tune.branches": {name: {}}, "control": name}))
    assert name in plan(study)


def test_own_names():
    names = ("mine",)
    assert study_config.parse(at({"model.name": "mine"}), names).packs[0].model.name == "mine"
    assert study_config.parse(at({"diagnostics": ("mine",)}), names).diagnostics == ("mine",)
    assert plan(study_config.parse(at({"stages.tune.reset.function": "mine"}), names))["fresh"].reset.function == "mine"
    assert "choose one of mine" in refused({"stages.tune.reset.function": "main"}, names)


# Plans.


@pytest.mark.parametrize(
    "change", [{"batch_size": 64}, {"augment": "crop"}, {"trained": ("head",)}, {"optim": {"name": "rmsprop"}}]
)
def test_branches_that_differ_in_what_is_compiled_train_one_after_the_other(change):
    study = study_config.parse(at({WARM: {"after": "pretrain"} | change}))
    groups = {group.name: [run.branch for run in group.runs] for group in unfold(study.packs[0], (0,))}
    assert groups == {"pretrain": ["pretrain"], "tune,1": ["fresh"], "tune,2": ["pretrain+tune"]}


def test_branches_that_are_evaluated_at_other_times_train_side_by_side():
    study = study_config.parse(at({WARM: {"after": "pretrain", "eval_every": 1}}))
    assert [group.name for group in unfold(study.packs[0], (0,))] == ["pretrain", "tune"]


@pytest.mark.parametrize("branch", [FRESH, WARM])
def test_a_grid_over_what_is_compiled_in_a_branch_has_packs(branch):
    grid = ((f"{branch}.batch_size", (32, 64)),)
    study = study_config.parse(at({branch: {"after": "pretrain"}, "stages.tune.batch_size": 32, "grid": grid}))
    groups = {pack.name: [group.name for group in unfold(pack, (0,))][1:] for pack in study.packs}
    assert groups == {"batch_size=32": ["tune"], "batch_size=64": ["tune,1", "tune,2"]}


def test_branches_may_differ_in_data_length_and_rate():
    change = {"data": {"fraction": 0.5}, "epochs": 3, "optim": {"learning_rate": 1.0}, "reset": {"shrink": 0.5}}
    assert plan(study_config.parse(at({WARM: {"after": "pretrain"} | change})))["pretrain+tune"].epochs == 3.0


@pytest.mark.parametrize(
    ("after", "line"),
    [
        ("pretrian", "no such stage"),
        ("pretrain/x", "no such stage"),
        ("tune/fresh", "continue from each other"),
        ("pretrain@x", "whole number"),
        ("pretrain@351", "pretrain has only 350 epochs"),
        ("init@3", "no such stage"),
    ],
)
def test_plans_that_cannot_be_walked(after, line):
    assert line in refused({f"{WARM}.after": after})


@pytest.mark.parametrize("after", ["pretrain@0", "pretrain@350", "pretrain/pretrain@7"])
def test_plans_that_continue_from_an_epoch(after):
    assert plan(study_config.parse(at({f"{WARM}.after": after})))["pretrain+tune"].after == after


@pytest.mark.parametrize("keep", ["keep", "modules"])
def test_moments_are_kept_only_of_the_same_optimiser(keep):
    here = {"stages.tune.reset.optimiser": keep}
    assert plan(study_config.parse(at(here)))["fresh"].reset.optimiser == keep
    message = refused(here | {"stages.tune.optim.name": "rmsprop"})
    assert message.startswith(f"config.{WARM}.reset.optimiser={keep!r}: pretrain trains with adam")
    sgd = {"stages.tune.optim.name": "sgd", "stages.pretrain.optim.name": "sgd"}
    assert "momentum 0" in refused(here | sgd | {"stages.tune.optim.momentum": 0.9})
    study_config.parse(at({"stages.tune.optim.name": "rmsprop"}))


def test_the_control_matters_only_in_company():
    study_config.parse(at({"stages.tune.branches": {"only": {}}, "stages.pretrain.after": "tune", "control": "fresh"}))
    assert "choose one of pretrain, fresh" in refused({f"{WARM}.after": "init", "control": "x"})


def test_final_runs_need_names_of_their_own():
    stage = values()["stages"]["tune"]
    message = refused({"stages.other": stage})
    assert "tune" in message and "other" in message and "fresh" in message


# The grid.


def grid(*axes, **changes) -> spec.Study:
    return study_config.parse(values(grid=axes, **changes))


def test_a_grid_is_the_product_of_its_axes():
    study = grid(("stages.tune.optim.learning_rate", (1e-3, 1e-2)), ("stages.pretrain.epochs", (0.5, 7)))
    (pack,) = study.packs
    assert pack.name == "main"
    assert [hparams for hparams, _ in pack.plans] == [
        (("learning_rate", rate), ("epochs", epochs)) for rate in (1e-3, 1e-2) for epochs in (0.5, 7)
    ]
    for i, (hparams, _) in enumerate(pack.plans):
        stages = plan(study, point=i)
        assert stages["fresh"].optim.learning_rate == dict(hparams)["learning_rate"]
        assert stages["pretrain"].optim.learning_rate == 1e-3
        assert stages["pretrain"].epochs == dict(hparams)["epochs"]


def test_shapes_make_packs():
    study = grid(("model.width", (8, 16)), ("stages.tune.optim.learning_rate", (1e-3, 1e-2)))
    assert [(pack.name, pack.model.width, len(pack.plans)) for pack in study.packs] == [
        ("width=8", 8, 2),
        ("width=16", 16, 2),
    ]
    study = grid(("stages.tune.batch_size", (32, 64)), ("stages.pretrain.batch_size", (32, 64)))
    assert [pack.name for pack in study.packs][1] == "stages.tune.batch_size=32,stages.pretrain.batch_size=64"
    assert plan(study, pack=1)["pretrain"].batch_size == 64


def test_values_of_one_shape_share_a_pack():
    sgd = {"stages__tune__optim__name": "sgd"}
    study = grid(("stages.tune.optim.momentum", (0, 0.5, 0.9)), **sgd)
    assert [(pack.name, len(pack.plans)) for pack in study.packs] == [("momentum=0", 1), ("momentum=0.5+0.9", 2)]


def test_pack_names_are_safe_and_distinct():
    many = tuple(i / 1000 for i in range(1, 60))
    study = grid(("stages.tune.optim.momentum", (0, *many)), stages__tune__optim__name="sgd")
    assert [pack.name for pack in study.packs] == ["pack0", "pack1"]
    study = study_config.parse(at({"grid": (("model.name", ("a b/c", "a_b_c")),)}), custom=("a b/c", "a_b_c"))
    assert [pack.name for pack in study.packs] == ["pack0", "pack1"]
    study = study_config.parse(at({"grid": (("model.name", ("../x", "mlp")),)}), custom=("../x",))
    assert [pack.name for pack in study.packs] == ["name=.._x", "name=mlp"]


def test_keys_that_end_alike_are_written_in_full():
    study = grid(("stages.tune.epochs", (1, 2)), ("stages.pretrain.epochs", (3,)), ("model.width", (8,)))
    assert study.packs[0].plans[1][0] == (("stages.tune.epochs", 2), ("stages.pretrain.epochs", 3), ("width", 8))


def test_tuples_are_written_as_one_word():
    study = grid(("stages.tune.reset.modules", ((), ("head",), ("module5", "head"))))
    assert [hparams for hparams, _ in study.packs[0].plans] == [
        (("modules", "none"),),
        (("modules", "head"),),
        (("modules", "module5+head"),),
    ]
    assert plan(study, point=2)["fresh"].reset.modules == ("module5", "head")


def test_a_grid_reaches_into_branches():
    study = grid((f"{WARM}.optim.learning_rate", (1e-3, 1e-2)), (f"{WARM}.after", ("pretrain", "pretrain@5")))
    assert plan(study, point=3)["pretrain+tune"].optim.learning_rate == 1e-2
    assert plan(study, point=3)["pretrain+tune"].after == "pretrain@5"
    assert plan(study, point=3)["fresh"].optim.learning_rate == 1e-3
    _, tune = unfold(study.packs[0], (0,))
    assert [run.id for run in tune.runs].count("fresh/seed0") == 1
    assert len(tune.runs) == 1 + 4


@pytest.mark.parametrize(
    "axes",
    [
        (("model.width", (8, 16)),),
        [["model.width", [8, 16]]],
        ("model.width", (8, 16)),
        ("model.width=8,16",),
        {"model.width": (8, 16)},
    ],
)
def test_ways_to_write_a_grid(axes):
    study = study_config.parse(at({"grid": axes}))
    assert [pack.model.width for pack in study.packs] == [8, 16]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("stages.tune.optim.name=adam,rmsprop", ["adam", "rmsprop"]),
        ("stages.tune.data.shuffle=true,False", [True, False]),
        ("stages.tune.augment=none,crop_flip", ["none", "crop_flip"]),
        ("stages.tune.optim.learning_rate=1e-3", [1e-3]),
        ("stages.tune.after=init,pretrain@5", ["init", "pretrain@5"]),
        ("stages.tune.reset.modules=(),('head','stem')", ["none", "head+stem"]),
    ],
)
def test_a_grid_from_the_command_line(written, found):
    study = study_config.parse(at({"grid": (written,)}))
    assert [hparams[0][1] for pack in study.packs for hparams, _ in pack.plans] == found


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ((("model.widht", (8,)),), "there is no model.widht; did you mean model.width?"),
        ((("learning_rate", (1.0,)),), "optim.learning_rate?"),
        ((("stages.tune.branches.frsh.epochs", (1,)),), "there is no stages.tune.branches.frsh.epochs"),
        (((f"{WARM}.epoch", (1,)),), "there is no"),
        ((("size", {"s": {"model.widht": 8}}),), "there is no model.widht; did you mean model.width?"),
        ((("size", {"s": {"model": 8}}),), "model is a group of keys"),
        ((("size", {"s": {"seeds": (1,)}}),), "all runs share seeds"),
        ((("size", {"s": {"model.width": 0}}),), "config.model.width=0: must be at least 1"),
        ((("size", {}),), "config.grid: size=(): give at least one value"),
        ((("size", {"s": 8}),), "config.grid=('size', {'s': 8}): must be a pair (path, values) or (name, {word:"),
        ((("size", {"s": {8: 8}}),), "config.grid=('size', {'s': {8: 8}}): must be a pair"),
        ((("size", {"s": {"model.width": 8}}), ("model.width", (4,))), "model.width is changed by size and by"),
        ((("size", {"s": {}}), ("size", {"t": {}})), "config.grid: size is given twice"),
        ((("model.width", ()),), "at least one value"),
        ((("model.width", (8, 8)),), "none twice"),
        ((("model.width", (8,)), ("model.width", (16,))), "given twice"),
        ((("seeds", ((0,), (1,))),), "all runs share seeds"),
        ((("dataset", ("a", "b")),), "all runs share dataset"),
        ((("stages.tune.optim", ("adam",)),), "is a group of keys"),
        ((("model.width", 8),), "config.grid=('model.width', 8): must be a pair (path, values) or (name, {word: {path"),
        (("model.width",), "config.grid='model.width': must be a pair"),
        ((3,), "config.grid=3: must be a pair"),
        (3, "must be a tuple"),
        ((("model.width", (8, 0)),), "config.model.width=0: must be at least 1"),
        ((("stages.tune.epochs", ("a",)),), "config.stages.tune.epochs='a': must be a number"),
    ],
)
def test_malformed_grids(axes, line):
    assert line in refused({"grid": axes})


STEP = {"stages__tune__optim__schedule": "step"}
RATE = "stages.tune.optim.learning_rate"
SCALARS = [np.float16(0.5), np.float32(0.1), np.float64(0.1), np.int8(3), np.int64(3), np.uint32(3), jnp.float32(0.1)]
SCALARS += [np.array(0.1), np.array(3, np.int16)]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: f"{type(scalar).__name__}-{scalar.dtype}-{scalar}")
def test_scalars_of_numpy_and_jax_are_plain_numbers(scalar):
    plain = 3 if scalar.dtype.kind in "iu" else 0.5 if scalar.dtype == np.float16 else 0.1
    for axes in (((RATE, (scalar, 1)),), (("rate", {scalar.item(): {RATE: scalar}}),), {RATE: (scalar,)}):
        study = study_config.parse(at({"grid": axes}))
        assert plan(study)["fresh"].optim.learning_rate == plain
        assert restore_study(parse.describe(study)) == study
    (hparams, _), _ = grid((RATE, (scalar, 1))).packs[0].plans
    assert repr(hparams) == repr((("learning_rate", plain),))


def test_arrays_are_taken_item_by_item():
    plain = grid((RATE, (0.5, 0.25)), ("stages.tune.optim.milestones", ((0.5, 0.75), (0.25, 0.5))), **STEP)
    halves, pairs = np.array([0.5, 0.25], np.float32), np.array([[0.5, 0.75], [0.25, 0.5]])
    assert grid((RATE, halves), ("stages.tune.optim.milestones", pairs), **STEP) == plain
    assert study_config.parse(at({"seeds": np.arange(2), "stages.tune.augment": "none"})).seeds == (0, 1)
    assert study_config.parse(at({"model.width": np.int64(8), "stages.tune.data.shuffle": np.bool_(False)}))


@pytest.mark.parametrize("name", sorted(columns.COLUMNS))
def test_an_axis_is_not_called_like_a_column(name):
    message = refused({"grid": ((name, {"a": {RATE: 1.0}}),)})
    assert message == f"config.grid: {name} is the name of a column of the table of results; choose another"


TEXTS = st.text("aZ09_-+=.,;:/\\'\"{}[]()$~ \n\t\0\x7f\xa0\xadé\u200b\u2028\u202e\ufeff\ud800\U0001f600", max_size=12)
WORDS = st.one_of(TEXTS, st.floats(), st.integers(), st.booleans(), st.none(), st.binary())
NAMES = st.one_of(TEXTS, st.sampled_from(sorted(columns.COLUMNS)), st.sampled_from(["a/b", "a" * 201, "\n", "rate"]))


@settings(max_examples=15)
@given(NAMES, st.lists(WORDS, max_size=2), TEXTS)
def test_what_config_takes_can_be_read_back(axis, words, name):
    words = {word: {RATE: i + 1.0} for i, word in enumerate(words)}
    try:
        study = study_config.parse(at({"grid": ((axis, words),), "name": name, "data_dir": name}))
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert restore_study(json.loads(json.dumps(parse.describe(study)))) == study


RULES = {
    "slow": {"stages.pretrain.optim.learning_rate": 1e-4, "stages.tune.optim.learning_rate": 1e-4},
    "fast": {"stages.pretrain.optim.learning_rate": 1e-2, "stages.tune.optim.learning_rate": 3e-2},
}


def test_an_axis_with_names_changes_several_keys_together():
    study = grid(("rule", RULES), ("stages.tune.epochs", (1, 2)))
    (pack,) = study.packs
    assert [hparams for hparams, _ in pack.plans] == [
        (("rule", rule), ("epochs", epochs)) for rule in RULES for epochs in (1, 2)
    ]
    for i, (hparams, _) in enumerate(pack.plans):
        stages, rule = plan(study, point=i), RULES[dict(hparams)["rule"]]
        assert stages["pretrain"].optim.learning_rate == rule["stages.pretrain.optim.learning_rate"]
        assert stages["fresh"].optim.learning_rate == rule["stages.tune.optim.learning_rate"]
        assert (stages["pretrain"].epochs, stages["fresh"].epochs) == (350, dict(hparams)["epochs"])


@pytest.mark.parametrize("axes", [("rule", RULES), (("rule", RULES),), {"rule": RULES}])
def test_ways_to_write_an_axis_with_names(axes):
    (pack,) = study_config.parse(at({"grid": axes})).packs
    assert [hparams for hparams, _ in pack.plans] == [(("rule", "slow"),), (("rule", "fast"),)]


def test_names_may_stand_for_shapes():
    sizes = {"deep": {"model.depth": 3, "model.width": 8}, "wide": {"model.width": 16}}
    study = grid(("size", sizes), ("stages.tune.optim.learning_rate", (1e-3, 1e-2)))
    assert [(pack.name, pack.model.depth, pack.model.width, len(pack.plans)) for pack in study.packs] == [
        ("size=deep", 3, 8, 2),
        ("size=wide", 2, 16, 2),  # the depth of the config
    ]


@pytest.mark.parametrize(
    ("words", "pretrained", "tuned"),
    [
        # the word is part of a run's name from the first stage on that it changes
        (RULES, ["pretrain,rule=slow", "pretrain,rule=fast"], ["fresh,rule=slow", "fresh,rule=fast"]),
        (
            {"a": {"stages.tune.epochs": 1}, "b": {"stages.tune.epochs": 2, "stages.tune.optim.eps": 1e-4}},
            ["pretrain"],
            ["fresh,rule=a", "fresh,rule=b"],
        ),
        ({"a": {}, "b": {f"{WARM}.optim.learning_rate": 1.0}}, ["pretrain"], ["fresh"]),
        (  # each name changes another stage
            {"a": {"stages.pretrain.epochs": 1}, "b": {"stages.tune.epochs": 2}},
            ["pretrain,rule=a", "pretrain,rule=b"],
            ["fresh,rule=a", "fresh,rule=b"],
        ),
        (
            {"a": {"model.dtype": "float32"}, "b": {"model.dtype": "float32", "stages.tune.epochs": 1}},
            ["pretrain"],  # the same value for both
            ["fresh,rule=a", "fresh,rule=b"],
        ),
    ],
)
def test_a_word_is_part_of_a_name_only_where_it_matters(words, pretrained, tuned):
    (pack,) = grid(("rule", words)).packs
    pretrain, tune = unfold(pack, (0,))
    assert [run.id for run in pretrain.runs] == [f"{name}/seed0" for name in pretrained]
    assert [run.id for run in tune.runs if run.branch == "fresh"] == [f"{name}/seed0" for name in tuned]
    assert [run.id for run in tune.runs if run.branch != "fresh"] == [
        f"pretrain+tune,rule={word}/seed0" for word in words
    ]


def test_run_ids_are_distinct():
    study = grid(
        ("stages.pretrain.epochs", (1, 2)), ("stages.tune.optim.learning_rate", (0.1, 0.2)), ("model.depth", (1, 2))
    )
    for pack in study.packs:
        for group in unfold(pack, study.seeds):
            assert len({run.id for run in group.runs}) == len(group.runs)


# After the parsing.


def test_description_survives_a_file_and_tells_studies_apart():
    study = grid(("stages.tune.reset.modules", ((), ("head",))), ("model.width", (8, 16)))
    described = parse.describe(study)
    assert json.loads(json.dumps(described)) == described
    assert described["packs"][1]["plans"][1][1][1]["reset"]["modules"] == ["head"]
    assert described["seeds"] == [0, 1, 2, 3, 4]
    assert described != parse.describe(grid(("stages.tune.reset.modules", ((), ("stem",))), ("model.width", (8, 16))))


def test_parsing_leaves_the_config_alone():
    before = at({"grid": ((f"{FRESH}.optim.learning_rate", (1.0, 2.0)), ("model.width", (8,)))})
    copy = json.dumps(before)
    study_config.parse(before)
    assert json.dumps(before) == copy
    locked = multistage.get_config("small").lock()
    study_config.parse(locked)
    assert locked.to_json() == multistage.get_config("small").to_json()


def test_a_value_is_part_of_a_name_only_where_it_matters():
    for rates in ((1e-2,), (1e-2, 1e-1)):  # the same with one point as with several
        study = grid(("stages.tune.optim.learning_rate", rates))
        pretrain, tune = unfold(study.packs[0], (0,))
        assert [run.id for run in pretrain.runs] == ["pretrain/seed0"]
        assert "pretrain+tune,learning_rate=0.01/seed0" in [run.id for run in tune.runs]
        study = grid((f"{WARM}.optim.learning_rate", rates))
        _, tune = unfold(study.packs[0], (0,))
        assert [run.id for run in tune.runs][0] == "fresh/seed0"
