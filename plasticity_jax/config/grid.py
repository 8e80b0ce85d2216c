"""Expands the grid of a config into points, names them, and groups them into packs that share one compiled program."""

import ast
import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.config import columns, names, rules, spec, validate
from plasticity_jax.errors import ConfigError

Changes = tuple[tuple[str, Any], ...]  # (path, value) of every key that changes


@dataclasses.dataclass(frozen=True)
class Choice:
    """One value of one axis; `axis` is the path that it changes, or the name of an axis with named values."""

    axis: str
    value: Any
    changes: Changes


Point = tuple[Choice, ...]  # one choice for every axis


def points(values: Mapping[str, Any], grid: Any) -> Iterator[Point]:
    """Yields every point of the grid; for an empty grid, one empty point.

    Args:
      values: the whole config.
      grid: a tuple of axes, or a mapping.  An axis is a pair (path, values), a string `path=value,value`, or a pair
        (name, {word: {path: value, ..}}) whose values are named and may change several keys together.

    Raises:
      ConfigError: the grid has another form, an axis has no values, or a path is unknown or shared by all runs.
    """
    if isinstance(grid, (ConfigDict, Mapping)):
        grid = tuple(grid.items())
    if not isinstance(grid, (tuple, list)):
        raise rules.error("config.grid", grid, "must be a tuple of (path, values) pairs")
    if len(grid) == 2 and isinstance(grid[0], str) and "=" not in grid[0]:
        grid = (grid,)  # a single pair
    keys = dict(validate.paths(values))
    axes: dict[str, tuple[Choice, ...]] = {}
    reached: dict[str, str] = {}
    for axis in grid:
        name, choices = _axis(axis)
        if name in axes:
            raise ConfigError(f"config.grid: {name} is given twice")
        for path in dict.fromkeys(path for choice in choices for path, _ in choice.changes):
            if path in reached:
                raise ConfigError(f"config.grid: {path} is changed by {reached[path]} and by {name}")
            reached[path] = name
            _check_path(values, keys, path)
        values_of = [choice.value for choice in choices]
        if not values_of or any(values_of[i] in values_of[:i] for i in range(len(values_of))):
            raise ConfigError(f"config.grid: {name}={tuple(values_of)!r}: give at least one value, and none twice")
        axes[name] = choices
    for key, name in zip(_keys(list(axes)), axes, strict=True):
        names.check_key(key, "config.grid")
        if key in columns.COLUMNS:
            raise ConfigError(f"config.grid: {name} is the name of a column of the table of results; choose another")
        for choice in axes[name]:
            _check_word(name, choice.value)
    yield from itertools.product(*axes.values())


def _axis(axis: Any) -> tuple[str, tuple[Choice, ...]]:
    if isinstance(axis, str) and "=" in axis:
        path, _, written = axis.partition("=")
        axis = path.strip(), _literals(written)
    match axis:
        case (str() as path, (tuple() | list()) as values):
            return path, tuple(Choice(path, value, ((path, value),)) for value in values)
        case (str() as name, (ConfigDict() | Mapping()) as named) if all(map(_by_path, named.values())):
            return name, tuple(Choice(name, word, tuple(changes.items())) for word, changes in named.items())
    raise rules.error(
        "config.grid",
        axis,
        "must be a pair (path, values) or (name, {word: {path: value}}), or PATH=VALUE,VALUE on the command line",
    )


def _check_word(axis: str, value: Any) -> None:
    """Raises a `ConfigError` for a value that cannot be restored from the table of results or config.json."""
    word = _word(value)
    plain = isinstance(word, (str, int, float, bool, type(None)))
    if not plain or (isinstance(word, float) and not math.isfinite(word)):
        raise ConfigError(f"config.grid: {axis}={value!r}: must be a word, a finite number or a tuple of these")
    if isinstance(word, str) and not word.isprintable():
        raise ConfigError(f"config.grid: {axis}={value!r}: must have no control characters")


def _by_path(changes: Any) -> bool:
    return isinstance(changes, (ConfigDict, Mapping)) and all(isinstance(path, str) for path in changes)


def _literals(written: str) -> tuple:
    """The values after `path=` on a command line: Python literals, or words without quotes."""
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
    """For a path in a branch, the same path in its stage, since a branch lists only the keys that it changes."""
    keys = path.split(".")
    if len(keys) > 4 and keys[0] == "stages" and keys[2] == "branches":
        return ".".join(keys[:2] + keys[4:])
    return path


def _check_path(values: Mapping[str, Any], keys: Mapping[str, Any], path: str) -> None:
    """Raises a `ConfigError` for a path that is not among the `keys` of the config, or that all runs share."""
    branch = ".".join(path.split(".")[:4])
    if path not in keys and not (branch in keys and _inherited(path) in keys):
        raise ConfigError(f"config.grid: there is no {path}; did you mean {validate.nearest(path, values)}?")
    if path.split(".")[0] not in ("model", "stages"):
        raise ConfigError(
            f"config.grid: all runs share {path}; vary keys of model and stages, or start several studies"
        )
    if isinstance(keys.get(path, keys.get(_inherited(path))), Mapping):
        raise ConfigError(f"config.grid: {path} is a group of keys; vary one of them")


def apply(values: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """A copy of the config with the changes of one point."""
    result = copy.deepcopy(dict(values))
    for path, value in (change for choice in point for change in choice.changes):
        *groups, key = path.split(".")
        holder = result
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[key] = value
    return result


def hparams(point: Point) -> spec.HParams:
    """(key, value) of each axis, as in the names of runs: the last key of a path if unambiguous, tuples as one word."""
    keys = _keys([choice.axis for choice in point])
    return tuple((key, _word(choice.value)) for key, choice in zip(keys, point, strict=True))


def scopes(points: Sequence[Point]) -> tuple[tuple[str, str], ...]:
    """(hyper-parameter, `STAGE` or `STAGE/BRANCH` that it belongs to); those that affect several are left out."""
    scoped = []
    for key, *choices in zip(_keys([choice.axis for choice in points[0]]), *points, strict=True):
        reach = {_scope(path) for choice in choices for path, _ in choice.changes}  # named values may change other keys
        if len(reach) == 1 and (scope := reach.pop()):
            scoped.append((key, scope))
    return tuple(scoped)


def _scope(path: str) -> str:
    """The `STAGE` or `STAGE/BRANCH` that a path lies in; empty for a path of the model."""
    group, *names = path.split(".")
    if group != "stages":
        return ""
    return f"{names[0]}/{names[2]}" if names[1] == "branches" else names[0]


def _keys(paths: Sequence[str]) -> list[str]:
    ends = [path.rpartition(".")[2] for path in paths]
    return [end if ends.count(end) == 1 else path for end, path in zip(ends, paths, strict=True)]


def _word(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return "+".join(_word(str(item)) for item in value) or "none"
    return value.replace("/", ":") if isinstance(value, str) else value


def compiled(stage: spec.Stage) -> dict[str, Any]:
    """Fields of a branch that are equal for all points of a pack: those compiled, and when to evaluate and measure."""
    when = ("eval_every", "eval_tail", "measure_steps", "measure_every")
    return stage.shape() | {name: getattr(stage, name) for name in when}


def packs(
    plans: list[tuple[spec.HParams, spec.Model, spec.Plan]], scopes: tuple[tuple[str, str], ...]
) -> tuple[spec.Pack, ...]:
    """Groups the points by their compiled fields; `scopes` is the result of the function of that name."""
    groups: dict[Any, list] = {}
    for point, model, plan in plans:
        shapes = tuple((stage.name, stage.branch, *compiled(stage).items()) for stage in plan)
        groups.setdefault((model, shapes), []).append((point, plan))
    called = _pack_names([[point for point, _ in group] for group in groups.values()])
    return tuple(
        spec.Pack(name=name, model=model, plans=tuple(group), scopes=scopes)
        for name, ((model, _), group) in zip(called, groups.items(), strict=True)
    )


def _pack_names(packed: list[list[spec.HParams]]) -> list[str]:
    """`main` for a single pack, else the values in which the packs differ; these become directories."""
    if len(packed) == 1:
        return ["main"]
    keys = [key for key, _ in packed[0][0]]
    by_pack = [{key: list(dict.fromkeys(str(dict(point)[key]) for point in pack)) for key in keys} for pack in packed]
    telling = [key for key in keys if any(values[key] != by_pack[0][key] for values in by_pack)]
    written = [",".join(f"{key}={'+'.join(values[key])}" for key in telling) for values in by_pack]
    written = [names.safe(name, commas=True) for name in written]
    if len(set(written)) < len(written) or max(map(len, written)) > names.LONGEST:
        return [f"pack{i}" for i in range(len(packed))]
    return written
