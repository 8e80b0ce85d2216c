"""The only door for configs: a ConfigDict goes in, frozen dataclasses come out, or one line says what is wrong.

Importing this module is cheap; `parse` imports jax, for the names of models, optimisers and diagnostics.
"""

import ast
import copy
import dataclasses
import difflib
import itertools
import json
import numbers
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import stages
from plasticity_jax.errors import ConfigError

Check = Callable[[Any, str], Any]  # (value, dotted path of it) -> the value as a dataclass holds it

RECIPES = ("random", "split", "blend")
KEEP = ("keep", "modules", "all")
LARGEST = 2**31 - 1  # steps, seeds and indices are int32 on the device
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
LONGEST = 100  # characters of a pack's name: file systems take 255 bytes


def parse(config: ConfigDict | Mapping[str, Any], own: Collection[str] = ()) -> stages.Study:
    """The study that a config asks for.

    Args:
      config: as `configs/base.py` makes it; every key must be there, and no other.
      own: names that are given from Python: own diagnostics, resets and models.

    Raises:
      ConfigError: an unknown or missing key, a wrong type or value, or a plan that cannot be walked.
    """
    checks = _checks(own)
    values = plain(config)
    top = checks["study"](values, "config")
    points = list(_points(values, top.pop("grid")))
    top.pop("model"), top.pop("stages")
    plans = []
    for pairs in points:
        point = copy.deepcopy(values)
        for path, value in pairs:
            _place(point, path, value)
        model = checks["model"](point["model"], "config.model")
        plans.append((_hparams(pairs), model, _plan(point["stages"], checks["stage"])))
    packs = _packs(plans)
    branches = {branch: None for pack in packs for branch in _final_branches(pack, top["seeds"])}
    if len(branches) > 1 and top["control"] not in branches:
        raise _error("config.control", top["control"], f"choose one of {', '.join(branches)}")
    return stages.Study(packs=packs, **top)


def describe(study: stages.Study) -> dict[str, Any]:
    """The resolved study as plain JSON values, the same after a round trip through a file."""
    return json.loads(json.dumps(dataclasses.asdict(study)))


def plain(config: Any, where: str = "config") -> dict[str, Any]:
    """Nested dicts for nested ConfigDicts, in their order.

    Raises:
      ConfigError: no mapping at all, or a placeholder that was left empty.
    """
    if not isinstance(config, (ConfigDict, Mapping)):
        raise ConfigError(f"{where}={config!r}: must be a ConfigDict")
    result = {}
    for key in config:
        try:
            value = config[key]
        except ValueError as error:  # ml_collections: a required placeholder
            raise ConfigError(f"{where}.{key}: must be given") from error
        nested = isinstance(value, (ConfigDict, Mapping)) and key != "grid"
        result[str(key)] = plain(value, f"{where}.{key}") if nested else value
    return result


def has(path: str, values: Mapping[str, Any]) -> bool:
    """Whether there is a key or group at a dotted path, also written like `branches["a+b"].after`."""
    return re.sub(r"""\[["']?(.*?)["']?\]""", r".\1", path) in dict(_paths(values))


def nearest(path: str, values: Mapping[str, Any]) -> str:
    """The dotted path in `values` that `path` was most likely meant to be, judged by its last key first."""

    def likeness(candidate: str) -> float:
        ends = path.rpartition(".")[2], candidate.rpartition(".")[2]
        return _likeness(*ends) + _likeness(path, candidate)

    return max((path for path, _ in _paths(values)), key=likeness, default="")


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


# Checks of single values.


def _error(where: str, value: Any, need: str) -> ConfigError:
    return ConfigError(f"{where}={value!r}: {need}")


def _whole(low: int) -> Check:
    def check(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise _error(where, value, f"must be a whole number, at least {low}")
        if not low <= value <= LARGEST:
            raise _error(where, value, f"must be at least {low}" if value < low else f"must be at most {LARGEST}")
        return int(value)

    return check


def _real(interval: str) -> Check:
    """A finite number in an interval written like `(0, 1]`."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def check(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise _error(where, value, f"must be a number in {interval}")
        above = low < value or (interval[0] == "[" and value == low)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below and abs(value) < 1e300):  # inf is no number here, and ints have no largest
            raise _error(where, value, f"must be in {interval}")
        return float(value)

    return check


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _error(where, value, "must be True or False")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _error(where, value, "must be a string")
    return value


def _some_text(value: Any, where: str) -> str:
    if not _text(value, where).strip():
        raise _error(where, value, "must not be empty")
    return value


def _one_of(choices: Collection[str], empty: bool = False) -> Check:
    """One of the choices; `empty` also takes the empty string, for none."""

    def check(value: Any, where: str) -> str:
        if _text(value, where) in choices or (empty and not value):
            return value
        close = difflib.get_close_matches(value, choices, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        if not choices:
            raise _error(where, value, "there is nothing of that name; leave it empty, or give your own from Python")
        raise _error(where, value, f"choose one of {', '.join(choices)}{hint}")

    return check


def _several(check_one: Check, least: int = 0) -> Check:
    def check(value: Any, where: str) -> tuple:
        if not isinstance(value, (tuple, list)):
            raise _error(where, value, "must be a tuple")
        # On a command line `a,b` is one string.
        items = [part.strip() for item in value for part in item.split(",")] if _all_text(value) else value
        checked = tuple(check_one(item, f"{where}[{i}]") for i, item in enumerate(items))
        if len(checked) < least:
            raise _error(where, value, f"must have at least {least}")
        if len(set(checked)) < len(checked):
            raise _error(where, value, "must not repeat a value")
        return checked

    return check


def _all_text(value: Any) -> bool:
    return all(isinstance(item, str) for item in value)


def _group(make: Callable[..., Any], **fields: Check) -> Check:
    """A mapping with exactly these keys, given to `make` as keywords."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise _error(where, value, f"must be a group with the keys {', '.join(fields)}")
        missing = [key for key in fields if key not in value]
        for key in value:
            if key not in fields:
                raise _unknown(where, key, missing or list(fields))
        if missing:
            raise ConfigError(f"{where}: the key {missing[0]} is missing")
        return make(**{key: one(value[key], f"{where}.{key}") for key, one in fields.items()})

    return check


def _unknown(where: str, key: str, known: Collection[str]) -> ConfigError:
    close = max(known, key=lambda name: _likeness(name, key))
    return ConfigError(f"{where}.{key}: there is no such key; did you mean {where}.{close}?")


def _anything(value: Any, where: str) -> Any:
    return value


def _checks(own: Collection[str]) -> dict[str, Check]:
    from plasticity_jax import models, optim, runs
    from plasticity_jax.diagnostics import DIAGNOSTICS

    data = _group(
        stages.Data,
        recipe=_one_of(RECIPES),
        fraction=_real("(0, 1]"),
        splits=_whole(1),
        part=_whole(1),
        uniform=_real("[0, 1]"),
        gamma=_real("(0, 1)"),
        replacement=_truth,
        label_noise=_real("[0, 1]"),
    )
    rule = _group(
        stages.Optim,
        name=_one_of(optim.OPTIMISERS),
        learning_rate=_real("(0, inf)"),
        momentum=_real("[0, 1)"),
        nesterov=_truth,
        b1=_real("[0, 1)"),
        b2=_real("[0, 1)"),
        eps=_real("(0, inf)"),
        weight_decay=_real("[0, inf)"),
        clip_norm=_real("[0, inf)"),
        schedule=_one_of(optim.SCHEDULES),
        warmup=_real("[0, 1]"),
        milestones=_several(_real("(0, 1)")),
        decay=_real("[0, 1]"),
    )
    reset = _group(
        stages.Reset,
        modules=_several(_some_text),
        shrink=_real("[0, inf)"),
        perturb=_real("[0, inf)"),
        statistics=_one_of(KEEP),
        optimiser=_one_of(KEEP),
        function=_one_of(own, empty=True),
    )
    stage = _group(
        dict,
        after=_some_text,
        data=data,
        epochs=_real("[0, inf)"),
        steps=_whole(0),
        until_accuracy=_real("[0, 1]"),
        batch_size=_whole(1),
        augment=_truth,
        optim=rule,
        reset=reset,
        eval_every=_whole(0),
        eval_tail=_whole(0),
        branches=_anything,
    )
    model = _group(
        stages.Model,
        name=_one_of((*models.MODELS, *own)),
        depth=_whole(1),
        width=_whole(1),
        stem=_one_of(models.STEMS),
        norm=_one_of(models.NORMS),
        dtype=_one_of(models.DTYPES),
    )
    study = _group(
        dict,
        dataset=_some_text,
        data_dir=_text,
        train_images=_whole(0),
        validation_images=_whole(0),
        test_images=_whole(0),
        seeds=_several(_whole(0), least=1),
        model=_anything,
        stages=_anything,
        control=_some_text,
        window=_real("(0, 1]"),
        diagnostics=_several(_one_of((*DIAGNOSTICS, *own))),
        evaluate_train=_truth,
        eval_batch=_whole(1),
        strategy=_one_of(("auto", *runs.STRATEGIES)),
        checkpoint_seconds=_real("[0, inf)"),
        grid=_anything,
    )
    return {"study": study, "model": model, "stage": stage}


# The plan of one point of the grid.


def _plan(values: Any, check: Check) -> stages.Plan:
    if not isinstance(values, Mapping) or not values:
        raise _error("config.stages", values, "must be a group of stages by name, at least one")
    plan = []
    for name, stage in values.items():
        where = f"config.stages.{name}"
        _check_name(name, where)
        _make(check, stage, where, name, name)  # or an error of the stage would be blamed on its first branch
        branches = stage["branches"]
        if not isinstance(branches, Mapping):
            raise _error(f"{where}.branches", branches, "must be a group of branches by name")
        siblings = []
        for branch, override in (branches or {name: {}}).items():
            here = f"{where}.branches.{branch}" if branches else where
            _check_name(branch, here)
            siblings.append(_make(check, _merge(stage, override, here), here, name, branch))
            _check_alike(siblings[0], siblings[-1], here)
        plan += siblings
    return tuple(plan)


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name == stages.INIT:
        raise ConfigError(f"{where}: a name has letters, digits and _ - + . = only and is not {stages.INIT!r}")


def _merge(stage: Mapping[str, Any], override: Any, where: str) -> dict[str, Any]:
    if not isinstance(override, Mapping):
        raise _error(where, override, "must be a group of what this branch changes")
    merged = {key: value for key, value in stage.items() if key != "branches"}
    for key, value in override.items():
        if key not in merged:
            raise _unknown(where, key, list(merged))
        deeper = isinstance(merged[key], Mapping)
        merged[key] = _merge(merged[key], value, f"{where}.{key}") if deeper else value
    return merged | {"branches": {}} if "branches" in stage else merged


def _make(check: Check, values: Any, where: str, name: str, branch: str) -> stages.Stage:
    """The record of one branch, with what must hold between its fields."""
    fields = check(values, where)
    del fields["branches"]
    stage = stages.Stage(name=name, branch=branch, **fields)
    data, rule = stage.data, stage.optim
    if not stage.epochs and not stage.steps:
        raise _error(f"{where}.epochs", stage.epochs, "must be above 0, or give steps")
    if data.part > data.splits:
        raise _error(f"{where}.data.part", data.part, f"must be at most data.splits={data.splits}")
    if rule.momentum and rule.name.startswith("adam"):
        raise _error(f"{where}.optim.momentum", rule.momentum, f"{rule.name} has none; set b1, or take sgd or rmsprop")
    if rule.nesterov and not rule.momentum:
        raise _error(f"{where}.optim.nesterov", True, "needs optim.momentum above 0")
    if list(rule.milestones) != sorted(rule.milestones):
        raise _error(f"{where}.optim.milestones", rule.milestones, "must increase")
    if bool(rule.milestones) != (rule.schedule == "step"):
        raise _error(f"{where}.optim.milestones", rule.milestones, "the schedule step needs some, no other takes any")
    return stage


def _check_alike(first: stages.Stage, stage: stages.Stage, where: str) -> None:
    old, new = _compiled(first), _compiled(stage)
    for key in old:
        if old[key] != new[key]:
            raise ConfigError(
                f"{where}.{key}: is {new[key]!r} but {old[key]!r} in branch {first.branch}; branches of a stage train "
                f"side by side and share it, so give {stage.branch} a stage of its own"
            )


def _compiled(stage: stages.Stage) -> dict[str, Any]:
    return stage.shape() | {"eval_every": stage.eval_every, "eval_tail": stage.eval_tail}


# The grid.


def _points(values: Mapping[str, Any], grid: Any) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Every point as (path, value) pairs; without a grid, one empty point.

    `grid` is a mapping path -> values, a tuple of (path, values) pairs, or of strings `path=value,value`.
    """
    if isinstance(grid, (ConfigDict, Mapping)):
        grid = tuple(grid.items())
    if not isinstance(grid, (tuple, list)):
        raise _error("config.grid", grid, "must be a tuple of (path, values) pairs")
    if len(grid) == 2 and isinstance(grid[0], str) and "=" not in grid[0]:
        grid = (grid,)  # a lone pair
    axes: dict[str, tuple] = {}
    for axis in grid:
        path, choices = _axis(axis)
        if path in axes:
            raise ConfigError(f"config.grid: {path} is given twice")
        _check_path(values, path)
        if not choices or any(choices[i] in choices[:i] for i in range(len(choices))):
            raise ConfigError(f"config.grid: {path}={choices!r}: give at least one value, and none twice")
        axes[path] = choices
    for chosen in itertools.product(*axes.values()):
        yield tuple(zip(axes, chosen, strict=True))


def _axis(axis: Any) -> tuple[str, tuple]:
    if isinstance(axis, str) and "=" in axis:
        path, _, written = axis.partition("=")
        return path.strip(), _literals(written)
    match axis:
        case (str() as path, (tuple() | list()) as choices):
            return path, tuple(choices)
    raise _error("config.grid", axis, "must be a (path, values) pair, or PATH=VALUE,VALUE on the command line")


def _literals(written: str) -> tuple:
    """The values behind `path=` on a command line: Python literals, or bare words."""
    try:
        return ast.literal_eval(f"({written},)")
    except (ValueError, SyntaxError):
        words = [word.strip() for word in written.split(",")]
    values = []
    for word in words:
        try:
            values.append(ast.literal_eval(word.capitalize() if word in ("true", "false") else word))
        except (ValueError, SyntaxError):
            values.append(word)
    return tuple(values)


def _inherited(path: str) -> str:
    """The path in the stage of a path in one of its branches: branches name only what they change."""
    keys = path.split(".")
    if len(keys) > 4 and keys[0] == "stages" and keys[2] == "branches":
        return ".".join(keys[:2] + keys[4:])
    return path


def _check_path(values: Mapping[str, Any], path: str) -> None:
    known = dict(_paths(values))
    branch = ".".join(path.split(".")[:4])
    if path not in known and not (branch in known and _inherited(path) in known):
        raise ConfigError(f"config.grid: there is no {path}; did you mean {nearest(path, values)}?")
    if path.split(".")[0] not in ("model", "stages"):
        raise ConfigError(
            f"config.grid: all runs share {path}; vary keys of model and stages, or start several studies"
        )
    if isinstance(known.get(path, known.get(_inherited(path))), Mapping):
        raise ConfigError(f"config.grid: {path} is a group of keys; vary one of them")


def _place(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, key = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


def _hparams(pairs: tuple[tuple[str, Any], ...]) -> stages.HParams:
    """Short keys where they are unambiguous, and tuples as one word, because both become part of a run's name."""
    ends = [path.rpartition(".")[2] for path, _ in pairs]
    keys = [end if ends.count(end) == 1 else path for end, (path, _) in zip(ends, pairs, strict=True)]
    return tuple((key, _word(value)) for key, (_, value) in zip(keys, pairs, strict=True))


def _word(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return "+".join(str(item) for item in value) or "none"
    return value


# Packs.


def _packs(plans: list[tuple[stages.HParams, stages.Model, stages.Plan]]) -> tuple[stages.Pack, ...]:
    groups: dict[Any, list] = {}
    for hparams, model, plan in plans:
        shapes = {stage.name: tuple(_compiled(stage).items()) for stage in plan}
        groups.setdefault((model, tuple(shapes.items())), []).append((hparams, plan))
    names = _pack_names([[hparams for hparams, _ in group] for group in groups.values()])
    return tuple(
        stages.Pack(name=name, model=model, plans=tuple(group))
        for name, ((model, _), group) in zip(names, groups.items(), strict=True)
    )


def _pack_names(packs: list[list[stages.HParams]]) -> list[str]:
    """`main` for a lone pack, else the values in which the packs differ; a directory of each name is made."""
    if len(packs) == 1:
        return ["main"]
    keys = [key for key, _ in packs[0][0]]
    found = [{key: list(dict.fromkeys(str(dict(point)[key]) for point in pack)) for key in keys} for pack in packs]
    telling = [key for key in keys if any(values[key] != found[0][key] for values in found)]
    names = [",".join(f"{key}={'+'.join(values[key])}" for key in telling) for values in found]
    names = [re.sub(r"[^A-Za-z0-9_.+=,-]", "_", name) for name in names]
    if len(set(names)) < len(names) or max(map(len, names)) > LONGEST:
        return [f"pack{i}" for i in range(len(packs))]
    return names


# What must hold between stages.


def _final_branches(pack: stages.Pack, seeds: tuple[int, ...]) -> list[str]:
    """The branches that nothing continues from, once the plans of the pack can be walked."""
    final: dict[str, str] = {}
    for leg in stages.legs(pack, seeds):
        for run in leg.runs:
            if run.final and final.setdefault(run.branch, leg.name) != leg.name:
                raise ConfigError(
                    f"config.stages: runs of {final[run.branch]} and of {leg.name} would both be called {run.branch}; "
                    "give one of the branches another name"
                )
    for _, plan in pack.plans:
        for stage in plan:
            parent = stages.find_parent(plan, stage)
            if parent:
                _check_parent(stage, *parent)
    return list(final)


def _check_parent(stage: stages.Stage, parent: stages.Stage, epoch: int) -> None:
    where = f"config.stages.{stage.name}"
    if stage.branch != stage.name:
        where += f".branches.{stage.branch}"
    if not parent.steps and epoch > parent.epochs:
        raise _error(f"{where}.after", stage.after, f"{parent.name} has only {parent.epochs:g} epochs")
    moments = [(s.optim.name, s.optim.momentum > 0) for s in (parent, stage)]
    if stage.reset.optimiser != "all" and moments[0] != moments[1]:
        raise _error(
            f"{where}.reset.optimiser",
            stage.reset.optimiser,
            f"{parent.name} trains with {parent.optim.name} and momentum {parent.optim.momentum:g}, this stage with "
            f"{stage.optim.name} and {stage.optim.momentum:g}; make them equal, or set it to all",
        )
