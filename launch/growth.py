"""Merges a study that is planned again with its earlier version: only seeds and grid points may be added.

Old packs keep their names, and new points follow the old ones, so every job of the old plan is the same part of the new
study.
"""

import dataclasses
from typing import Any

from plasticity_jax.config import names, spec
from plasticity_jax.errors import LabError
from plasticity_jax.storage import workdir

Point = tuple[Any, ...]


def grown(key: str, old: spec.Study, new: spec.Study) -> spec.Study:
    """`new`, with the packs and points of `old` in their old places.

    Raises:
      LabError: something changed other than added seeds and points; the message names it.
    """
    _check_settings(key, old, new)
    gone = [seed for seed in old.seeds if seed not in new.seeds]
    if gone:
        raise _refusal(key, f"seed {gone[0]} is gone")
    before = {point: pack.name for pack in old.packs for point in _points(pack)}
    missing = before.keys() - {point for pack in new.packs for point in _points(pack)}
    if missing:
        point = next(point for point in before if point in missing)
        raise _refusal(key, _difference(point, new))
    taken = {pack.name for pack in old.packs}
    packs: dict[str, spec.Pack] = {pack.name: pack for pack in old.packs}
    for pack in new.packs:
        before_now = [before[point] for point in _points(pack) if point in before]
        if before_now:
            grows = packs[before_now[0]]
            plans = [plan for plan, point in zip(pack.plans, _points(pack), strict=True) if point not in before]
            packs[grows.name] = dataclasses.replace(grows, plans=(*grows.plans, *plans))
        else:
            name = _free(pack.name, taken)
            taken.add(name)
            packs[name] = dataclasses.replace(pack, name=name)
    return dataclasses.replace(new, packs=tuple(packs.values()))


def _points(pack: spec.Pack) -> list[Point]:
    """Hashable keys that identify the points of a pack completely."""
    return [(hparams, pack.model, pack.scopes, plan) for hparams, plan in pack.plans]


def _check_settings(key: str, old: spec.Study, new: spec.Study) -> None:
    """Raises a LabError if anything but seeds and packs differs."""
    for field in dataclasses.fields(spec.Study):
        if field.name in ("seeds", "packs", *workdir.MAY_CHANGE):
            continue
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was != now:
            raise _refusal(key, f"{field.name} was {names.shown(was)} and is {names.shown(now)}")


def _difference(point: Point, new: spec.Study) -> str:
    """How a point of the old study differs from the new one with the same hyper-parameters, if there is one."""
    hparams, model, scopes, plan = point
    shown = ",".join(f"{name}={value}" for name, value in hparams)
    of = f" (grid point {names.shown(shown)})" if shown else ""
    for pack in new.packs:
        for other, other_plan in pack.plans:
            if other == hparams:
                was, now = _flat((model, scopes, plan)), _flat((pack.model, pack.scopes, other_plan))
                path = next(path for path in {**was, **now} if was.get(path) != now.get(path))
                return f"{path} was {names.shown(was.get(path))} and is {names.shown(now.get(path))}{of}"
    return f"the grid point {names.shown(shown)} is gone" if shown else "there is a grid where there was none"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a (model, scopes, plan) by dotted paths."""
    if isinstance(value, spec.Stage):
        prefix = f"stages.{value.name}.{value.branch}"
    if isinstance(value, spec.Model):
        prefix = "model"
    if dataclasses.is_dataclass(value):
        inside = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple) and any(isinstance(item, (tuple, spec.Stage, spec.Model)) for item in value):
        inside = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {prefix: value}
    join = f"{prefix}." if prefix else ""
    return {path: leaf for name, item in inside for path, leaf in _flat(item, f"{join}{name}").items()}


def _free(name: str, taken: set[str]) -> str:
    """`name`, or if it is taken `name` with a number."""
    tries = [name, *(f"{name[: names.LONGEST - 5]}.{i}" for i in range(2, len(taken) + 3))]
    return next(candidate for candidate in tries if candidate not in taken)


def _refusal(key: str, difference: str) -> LabError:
    return LabError(
        f"study {key}: {difference}; a sweep that was begun can only get more seeds and grid points, so use another "
        "--workdir"
    )
