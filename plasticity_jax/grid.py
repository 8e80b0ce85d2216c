"""The grid of a config: its points, their names, and the packs of points that one program shape can train."""

import ast
import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import checks, stages
from plasticity_jax.errors import ConfigError

Pairs = tuple[tuple[str, Any], ...]  # (path, value) of every axis

LONGEST = 100  # characters of a pack's name: file systems take 255 bytes


def points(values: Mapping[str, Any], grid: Any) -> Iterator[Pairs]:
    """Every point as (path, value) pairs; without a grid, one empty point.

    Args:
      values: the whole config.
      grid: a tuple of (path, values) pairs or of strings `path=value,value`; or a mapping path -> values.

    Raises:
      ConfigError: not such a thing, an axis without values, or a path that is unknown or shared by all runs.
    """
    if isinstance(grid, (ConfigDict, Mapping)):
        grid = tuple(grid.items())
    if not isinstance(grid, (tuple, list)):
        raise checks.error("config.grid", grid, "must be a tuple of (path, values) pairs")
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
    raise checks.error("config.grid", axis, "must be a (path, values) pair, or PATH=VALUE,VALUE on the command line")


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
    known = dict(checks.paths(values))
    branch = ".".join(path.split(".")[:4])
    if path not in known and not (branch in known and _inherited(path) in known):
        raise ConfigError(f"config.grid: there is no {path}; did you mean {checks.nearest(path, values)}?")
    if path.split(".")[0] not in ("model", "stages"):
        raise ConfigError(
            f"config.grid: all runs share {path}; vary keys of model and stages, or start several studies"
        )
    if isinstance(known.get(path, known.get(_inherited(path))), Mapping):
        raise ConfigError(f"config.grid: {path} is a group of keys; vary one of them")


def apply(values: Mapping[str, Any], pairs: Pairs) -> dict[str, Any]:
    """A copy of the config at one point."""
    result = copy.deepcopy(dict(values))
    for path, value in pairs:
        *groups, key = path.split(".")
        holder = result
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[key] = value
    return result


def hparams(pairs: Pairs) -> stages.HParams:
    """Short keys where they are unambiguous, and tuples as one word, because both become part of a run's name."""
    keys = _keys([path for path, _ in pairs])
    return tuple((key, _word(value)) for key, (_, value) in zip(keys, pairs, strict=True))


def scopes(paths: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The `STAGE` or `STAGE/BRANCH` that each hyper-parameter belongs to; those of the model concern all."""
    found = []
    for key, path in zip(_keys(paths), paths, strict=True):
        group, *names = path.split(".")
        if group == "stages":
            found.append((key, f"{names[0]}/{names[2]}" if names[1] == "branches" else names[0]))
    return tuple(found)


def _keys(paths: Sequence[str]) -> list[str]:
    ends = [path.rpartition(".")[2] for path in paths]
    return [end if ends.count(end) == 1 else path for end, path in zip(ends, paths, strict=True)]


def _word(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return "+".join(_word(str(item)) for item in value) or "none"
    return value.replace("/", ":") if isinstance(value, str) else value


def compiled(stage: stages.Stage) -> dict[str, Any]:
    """What runs that train side by side have to share: what is compiled, and when to evaluate."""
    return stage.shape() | {"eval_every": stage.eval_every, "eval_tail": stage.eval_tail}


def packs(
    plans: list[tuple[stages.HParams, stages.Model, stages.Plan]], scopes: tuple[tuple[str, str], ...]
) -> tuple[stages.Pack, ...]:
    """The points grouped by all that is compiled; `scopes` is what the function of that name returns."""
    groups: dict[Any, list] = {}
    for point, model, plan in plans:
        shapes = {stage.name: tuple(compiled(stage).items()) for stage in plan}
        groups.setdefault((model, tuple(shapes.items())), []).append((point, plan))
    names = _pack_names([[point for point, _ in group] for group in groups.values()])
    return tuple(
        stages.Pack(name=name, model=model, plans=tuple(group), scopes=scopes)
        for name, ((model, _), group) in zip(names, groups.items(), strict=True)
    )


def _pack_names(packed: list[list[stages.HParams]]) -> list[str]:
    """`main` for a lone pack, else the values in which the packs differ; a directory of each name is made."""
    if len(packed) == 1:
        return ["main"]
    keys = [key for key, _ in packed[0][0]]
    found = [{key: list(dict.fromkeys(str(dict(point)[key]) for point in pack)) for key in keys} for pack in packed]
    telling = [key for key in keys if any(values[key] != found[0][key] for values in found)]
    names = [",".join(f"{key}={'+'.join(values[key])}" for key in telling) for values in found]
    names = [re.sub(r"[^A-Za-z0-9_.+=,-]", "_", name) for name in names]
    if len(set(names)) < len(names) or max(map(len, names)) > LONGEST:
        return [f"pack{i}" for i in range(len(packed))]
    return names
