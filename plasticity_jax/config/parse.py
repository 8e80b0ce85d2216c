"""Parses and checks a config: from a ConfigDict to a frozen `spec.Study`, or a `ConfigError` of one line."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import strict_json
from plasticity_jax.config import grid, names, rules, spec, validate
from plasticity_jax.config.plan import find_parent, unfold
from plasticity_jax.config.rules import Check, Names
from plasticity_jax.errors import ConfigError


def parse(config: ConfigDict | Mapping[str, Any], choices: Names) -> spec.Study:
    """Returns the study that a config describes.

    Args:
      config: as made by `configs/base.py`; every key must be present, and no other.
      choices: the names that it may use, by kind; `study_config` collects them.

    Raises:
      ConfigError: an unknown or missing key, a wrong type or value, or an inconsistent plan.
    """
    check_study = rules.record(spec.Study, choices, without=("packs",), free=("model", "stages", "grid"))
    check_model = rules.record(spec.Model, choices)
    check_stage = rules.record(spec.Stage, choices, without=("name", "branch"), free=("branches",))
    values = validate.plain(config)
    if "studies" in values:
        raise ConfigError("config.studies: this is a sweep of several studies; run it by plasticity local")
    top = check_study(values, "config")
    plans, points = [], list(grid.points(values, top["grid"]))
    for point in points:
        here = grid.apply(values, point)
        model = check_model(here["model"], "config.model")
        plans.append((grid.hparams(point), model, _plan(here["stages"], check_stage)))
    packs = grid.packs(plans, grid.scopes(points))
    branches = {branch: None for pack in packs for branch in _final_branches(pack)}
    if len(branches) > 1 and top["control"] not in branches:
        raise rules.error("config.control", top["control"], f"choose one of {', '.join(branches)}")
    shared = {key: value for key, value in top.items() if key not in ("model", "stages", "grid")}
    return spec.Study(packs=packs, **shared)


def describe(study: spec.Study) -> dict[str, Any]:
    """The resolved study as plain JSON values, unchanged by a round trip through a file."""
    return strict_json.loads(strict_json.dumps(dataclasses.asdict(study)))


def _plan(values: Any, check: Check) -> spec.Plan:
    if not isinstance(values, Mapping) or not values:
        raise rules.error("config.stages", values, "must be a group of stages by name, at least one")
    plan = []
    for name, stage in values.items():
        where = f"config.stages.{name}"
        _check_name(name, where)
        _make(check, stage, where, name, name)  # first, so that an error of the stage is not reported for its branch
        branches = stage["branches"]
        if not isinstance(branches, Mapping):
            raise rules.error(f"{where}.branches", branches, "must be a group of branches by name")
        for branch, override in (branches or {name: {}}).items():
            here = f"{where}.branches.{branch}" if branches else where
            _check_name(branch, here)
            plan.append(_make(check, _merge(stage, override, here), here, name, branch))
    return tuple(plan)


def _check_name(name: str, where: str) -> None:
    names.check(name, where)
    if name == spec.INIT:
        raise ConfigError(f"{where}: {spec.INIT!r} is reserved for the initial weights; choose another name")


def _merge(stage: Mapping[str, Any], override: Any, where: str) -> dict[str, Any]:
    if not isinstance(override, Mapping):
        raise rules.error(where, override, "must be a group of the keys that this branch changes")
    merged = {key: value for key, value in stage.items() if key != "branches"}
    for key, value in override.items():
        if key not in merged and not where.endswith(".remedies"):  # a branch may add remedies to those of its stage
            raise rules.unknown(where, key, list(merged))
        deeper = isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value, f"{where}.{key}") if deeper else value
    return merged | {"branches": {}} if "branches" in stage else merged


def _make(check: Check, values: Any, where: str, name: str, branch: str) -> spec.Stage:
    """The record of one branch; checks what must hold between its fields."""
    fields = check(values, where)
    del fields["branches"]
    stage = spec.Stage(name=name, branch=branch, **fields)
    for broken, key, value, need in (*_stage_rules(stage), *_task_rules(stage)):
        if broken:
            raise rules.error(f"{where}.{key}", value, need)
    return stage


Rule = tuple[object, str, Any, str]  # true if it is broken; the key to report, its value, and what it has to be


def _stage_rules(stage: spec.Stage) -> Iterator[Rule]:
    data, optim, milestones = stage.data, stage.optim, stage.optim.milestones
    stepped = optim.schedule == "step" if optim.schedule != "autodecay" else bool(milestones)
    wrong_range = data.classes and (len(data.classes) != 2 or data.classes[0] >= data.classes[1])
    adam = optim.name.startswith("adam")
    yield not (stage.epochs or stage.steps), "epochs", stage.epochs, "must be above 0, or give steps"
    yield data.part > data.splits, "data.part", data.part, f"must be at most data.splits={data.splits}"
    need = f"{optim.name} has none; set b1, or take sgd or rmsprop"
    yield optim.momentum and adam, "optim.momentum", optim.momentum, need
    yield optim.nesterov and not optim.momentum, "optim.nesterov", True, "needs optim.momentum above 0"
    yield list(milestones) != sorted(milestones), "optim.milestones", milestones, "must increase"
    need = "the schedule step needs some, autodecay may have some, no other takes any"
    yield bool(milestones) != stepped, "optim.milestones", milestones, need
    need = f"must divide batch_size={stage.batch_size}"
    yield stage.micro_batch and stage.batch_size % stage.micro_batch, "micro_batch", stage.micro_batch, need
    yield wrong_range, "data.classes", data.classes, "must be a range (first, last + 1), or empty"


def _task_rules(stage: spec.Stage) -> Iterator[Rule]:
    """What a stream of tasks excludes."""
    change = stage.data.tasks.change
    if change == "none":
        return
    at_start = ", ".join(remedy.name for remedy in stage.remedies if remedy.moment == "start")
    for broken, need in (
        (stage.data.patch.share, "patches always mean the same class; set data.patch.share to 0"),
        (stage.reset.function, "a custom reset happens only once; leave reset.function empty"),
        (at_start, f"{at_start} acts only once, at the start of the stage; remove it"),
        (change == "labels" and stage.data.label_noise, "all labels are random; set data.label_noise to 0"),
    ):
        yield broken, "data.tasks.change", change, need


INJECTION = "plasticity_injection"  # a remedy that needs `model.injected`
WITHOUT_NORM = ("mlp", "logistic")  # these ignore `model.norm`


def _final_branches(pack: spec.Pack) -> list[str]:
    """The branches that no stage continues from; raises a `ConfigError` if a plan of the pack is inconsistent."""
    final: dict[str, str] = {}
    for group in unfold(pack, (0,)):  # branches are the same for every seed
        for run in group.runs:
            name = run.stage.name
            if run.final and final.setdefault(run.branch, name) != name:
                raise ConfigError(
                    f"config.stages: runs of {final[run.branch]} and of {name} would both be called {run.branch}; "
                    "give one of the branches another name"
                )
    for _, plan in pack.plans:
        for stage in plan:
            parent = find_parent(plan, stage)
            if parent:
                _check_parent(stage, *parent)
            if not pack.model.injected and any(remedy.name == INJECTION for remedy in stage.remedies):
                what = f"stage {stage.name} has the remedy {INJECTION}; name the last modules, as ('module5', 'head')"
                raise rules.error("config.model.injected", (), what)
            if stage.activation_noise and (pack.model.norm == "none" or pack.model.name in WITHOUT_NORM):
                what = (
                    f"{pack.model.name} with norm {pack.model.norm} has no normalisation to add noise to; set it to 0"
                )
                raise rules.error(f"config.stages.{stage.name}.activation_noise", stage.activation_noise, what)
    return list(final)


def _check_parent(stage: spec.Stage, parent: spec.Stage, epoch: int) -> None:
    where = f"config.stages.{stage.name}"
    if stage.branch != stage.name:
        where += f".branches.{stage.branch}"
    if not parent.steps and epoch > parent.epochs:
        raise rules.error(f"{where}.after", stage.after, f"{parent.name} has only {parent.epochs:g} epochs")
    moments = [(s.optim.name, s.optim.momentum > 0, s.optim.rho > 0) for s in (parent, stage)]
    if stage.reset.optimiser != "all" and moments[0] != moments[1]:
        raise rules.error(
            f"{where}.reset.optimiser",
            stage.reset.optimiser,
            f"{parent.name} trains with {parent.optim.name} and momentum {parent.optim.momentum:g}, this stage with "
            f"{stage.optim.name} and {stage.optim.momentum:g} (rho {parent.optim.rho:g} and {stage.optim.rho:g}); make "
            "them equal, or set it to all",
        )
