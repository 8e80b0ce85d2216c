"""Plans unfold into the right runs."""

import dataclasses
import itertools

import pytest

from plasticity_jax.config import optim, spec
from plasticity_jax.config.plan import Group, parse_after, unfold
from plasticity_jax.errors import ConfigError

PATCH = spec.Patch(0.0, 7, 1.25, 0.1, 1, 0.2, 1.75)
DATA = spec.Data(0, (), "random", 1.0, 1, 1, 1.0, 0.5, False, True, 0.0, PATCH, spec.Tasks("none", 1), "none")
DETECTOR = optim.Detector("window", 5, 0.01, 1e-3, 0.0, 10, 0, 0.125, 4096, 0.05, True)
OPTIM = optim.Optim(
    "adam", 1e-3, 0.0, False, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0, "constant", 0.0, (), 0.1, DETECTOR, "all", 0
)
RESET = spec.Reset((), 0.0, 1.0, "modules", "all", "")
MODEL = spec.Model("resnet", 1, 8, "cifar", "batch", "float32", "relu", 0.0, (), False)


def record(name: str, branch: str = "", after: str = spec.INIT, rate: float = 1e-3, **fields) -> spec.Stage:
    values = {
        "epochs": 2.0,
        "steps": 0,
        "until_accuracy": 0.0,
        "batch_size": 32,
        "micro_batch": 0,
        "augment": "none",
        "trained": ("all",),
        "ema": 0.0,
        "optim": dataclasses.replace(OPTIM, learning_rate=rate),
        "data": DATA,
        "reset": RESET,
        "eval_every": 1,
        "eval_tail": 1,
        "measure_steps": (),
        "measure_every": 0,
        "remedies": (),
        "label_smoothing": 0.0,
        "activation_noise": 0.0,
    }
    return spec.Stage(name=name, branch=branch or name, after=after, **(values | fields))


def warm_start(rate: float = 1e-3, pretrain_rate: float = 1e-3) -> spec.Plan:
    return (
        record("pretrain", rate=pretrain_rate),
        record("tune", "fresh", rate=rate),
        record("tune", "pretrain+tune", "pretrain", rate=rate),
    )


def groups(*plans: spec.Plan, seeds=(0,), keys=("rate",), values=None) -> tuple[Group, ...]:
    """The groups of plans that are the points of a grid."""
    if len(plans) == 1 and values is None:
        points = [()]
    else:
        points = [tuple(zip(keys, value, strict=True)) for value in values]
    pack = spec.Pack("main", MODEL, tuple(zip(points, plans, strict=True)))
    return unfold(pack, seeds)


def ids(group: Group) -> list[str]:
    return [run.id for run in group.runs]


def test_one_plan_has_a_run_for_each_branch_and_seed():
    pretrain, tune = groups(warm_start(), seeds=(0, 3))
    assert (pretrain.name, tune.name) == ("pretrain", "tune")
    assert ids(pretrain) == ["pretrain/seed0", "pretrain/seed3"]
    assert ids(tune) == ["fresh/seed0", "fresh/seed3", "pretrain+tune/seed0", "pretrain+tune/seed3"]
    assert [run.parent for run in pretrain.runs] == [None, None]
    assert [run.parent for run in tune.runs] == [None, None, ("pretrain", 0, spec.END), ("pretrain", 1, spec.END)]


def test_parents_have_the_seed_of_their_children():
    pretrain, tune = groups(warm_start(), seeds=(7, 2, 5))
    for run in tune.runs:
        if run.parent:
            assert pretrain.runs[run.parent[1]].seed == run.seed


def test_only_runs_that_nothing_continues_from_are_final():
    pretrain, tune = groups(warm_start())
    assert [run.final for run in pretrain.runs + tune.runs] == [False, True, True]


def test_grid_over_the_tuning_shares_the_pretraining():
    plans = [warm_start(rate=rate) for rate in (1e-3, 1e-2, 1e-1)]
    pretrain, tune = groups(*plans, values=[(1e-3,), (1e-2,), (1e-1,)])
    assert ids(pretrain) == ["pretrain/seed0"]
    assert len(tune.runs) == 6
    assert {run.parent[1] for run in tune.runs if run.parent} == {0}
    assert ids(tune)[:2] == ["fresh,rate=0.001/seed0", "pretrain+tune,rate=0.001/seed0"]
    assert [run.stage.optim.learning_rate for run in tune.runs] == [1e-3, 1e-3, 1e-2, 1e-2, 1e-1, 1e-1]


def test_grid_over_the_pretraining_shares_the_fresh_control():
    plans = [warm_start(pretrain_rate=rate) for rate in (1e-3, 1e-2)]
    pretrain, tune = groups(*plans, values=[(1e-3,), (1e-2,)])
    assert ids(pretrain) == ["pretrain,rate=0.001/seed0", "pretrain,rate=0.01/seed0"]
    assert ids(tune) == ["fresh/seed0", "pretrain+tune,rate=0.001/seed0", "pretrain+tune,rate=0.01/seed0"]
    assert [run.parent and run.parent[1] for run in tune.runs] == [None, 0, 1]


def test_shared_runs_keep_only_the_hyperparameters_that_all_points_agree_on():
    grid = list(itertools.product((1e-3, 1e-2), (1e-3, 1e-2)))
    plans = [warm_start(rate=tune, pretrain_rate=pretrain) for pretrain, tune in grid]
    pretrain, tune = groups(*plans, keys=("first", "second"), values=grid)
    assert ids(pretrain) == ["pretrain,first=0.001/seed0", "pretrain,first=0.01/seed0"]
    assert sorted(run.id for run in tune.runs if run.branch == "fresh") == [
        "fresh,second=0.001/seed0",
        "fresh,second=0.01/seed0",
    ]
    assert len(tune.runs) == 2 + 4
    assert len(set(ids(tune))) == 6


def test_a_branch_that_differs_in_its_parent_only_is_another_run():
    plan = (
        record("pretrain", "short", epochs=1.0),
        record("pretrain", "long", epochs=2.0),
        record("tune", "a", "pretrain/short"),
        record("tune", "b", "pretrain/long"),
    )
    _, tune = groups(plan)
    assert [run.parent for run in tune.runs] == [("pretrain", 0, spec.END), ("pretrain", 1, spec.END)]


def test_chains_come_in_order_however_they_are_written():
    plan = (record("c", after="b"), record("a"), record("b", after="a"))
    ordered = groups(plan)
    assert [group.name for group in ordered] == ["a", "b", "c"]
    assert [group.runs[0].final for group in ordered] == [False, False, True]
    assert ordered[2].runs[0].parent == ("b", 0, spec.END)


def test_stages_that_do_not_depend_on_each_other_come_as_written():
    assert [group.name for group in groups((record("z"), record("a"), record("m")))] == ["z", "a", "m"]


def test_epochs_that_later_stages_continue_from_are_kept():
    plan = (
        record("pretrain", epochs=9.0),
        record("tune", "at 3", "pretrain@3"),
        record("tune", "at 0", "pretrain@0"),
        record("tune", "again 3", "pretrain/pretrain@3"),
        record("tune", "end", "pretrain"),
    )
    pretrain, tune = groups(plan, seeds=(0, 1))
    assert pretrain.keep == (0, 3)
    assert tune.keep == ()
    assert [run.parent[2] for run in tune.runs[::2]] == [3, 0, 3, spec.END]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("tune", ("tune", "", spec.END)),
        ("tune@12", ("tune", "", 12)),
        ("tune/a+b", ("tune", "a+b", spec.END)),
        ("tune/a+b@0", ("tune", "a+b", 0)),
    ],
)
def test_after_is_split(after, expected):
    assert parse_after(after) == expected


@pytest.mark.parametrize("after", ["tune@", "tune@-1", "tune@1.5", "tune@end"])
def test_after_needs_a_whole_epoch(after):
    with pytest.raises(ConfigError, match="whole number"):
        parse_after(after)


def test_two_stages_that_wait_for_each_other():
    with pytest.raises(ConfigError, match=r"\['a', 'b'\] continue from each other"):
        groups((record("a", after="b"), record("b", after="a"), record("c")))


def test_a_stage_that_waits_for_itself():
    with pytest.raises(ConfigError, match=r"\['tune'\] continue from each other"):
        groups((record("tune", "x"), record("tune", "y", "tune/x")))


def test_a_missing_parent_lists_the_stages():
    with pytest.raises(ConfigError, match=r"after='pretrian': there is no such stage.*'init', 'pretrain', 'tune'"):
        groups((record("pretrain"), record("tune", after="pretrian")))


def test_an_ambiguous_parent_lists_the_branches():
    plan = (record("pretrain", "x"), record("pretrain", "y"), record("tune", after="pretrain"))
    with pytest.raises(ConfigError, match="several branches; name one of .*pretrain/x.*pretrain/y"):
        groups(plan)


def test_shape_tells_apart_what_is_compiled_and_nothing_else():
    first = record("tune")
    same = [
        record("tune", rate=1.0),
        record("tune", epochs=9.0),
        record("tune", reset=dataclasses.replace(RESET, modules=("head",))),
    ]
    other = [
        record("tune", batch_size=64),
        record("tune", augment="crop"),
        record("tune", augment="crop_flip"),
        record("tune", optim=dataclasses.replace(OPTIM, name="sgd")),
        record("tune", optim=dataclasses.replace(OPTIM, momentum=0.9)),
        record("tune", optim=dataclasses.replace(OPTIM, clip_norm=1.0)),
        record("tune", optim=dataclasses.replace(OPTIM, schedule="cosine")),
        record("tune", reset=dataclasses.replace(RESET, function="mine")),
    ]
    assert all(stage.shape() == first.shape() for stage in same)
    assert all(stage.shape() != first.shape() for stage in other)
