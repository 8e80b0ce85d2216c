"""Studies read back from JSON that anybody may have written: the other half of `parse.describe`.

Types and structure are checked, and so are the names that become directories: whatever comes back is a study whose
files lie where they should.  Whether its values make sense is for `parse` to say, where they come from.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

from plasticity_jax.config import legacy, names, spec
from plasticity_jax.errors import ConfigError


def restore_study(described: Any, where: str = "config.json") -> spec.Study:
    """The study that `parse.describe` wrote down, now or in an earlier version; `where` begins every error.

    Raises:
      ConfigError: it is none, in one line.
    """
    study = _restore(spec.Study, legacy.study(described), where)
    if not study.seeds or not study.packs:
        raise ConfigError(f"{where}: a study has seeds and packs")
    seen = set()
    for i, pack in enumerate(study.packs):
        at = f"{where}.packs[{i}]"
        names.check(pack.name, f"{at}.name", commas=True)
        if pack.name in seen or not pack.plans:
            raise ConfigError(f"{at}: two packs of one name, or one without plans")
        seen.add(pack.name)
        for hparams, plan in pack.plans:
            for key, _ in hparams:
                names.check_key(key, at)
            for stage in plan:
                names.check(stage.name, f"{at}: stage")
                names.check(stage.branch, f"{at}: branch of stage {stage.name}")
            if not plan or len({(stage.name, stage.branch) for stage in plan}) < len(plan):
                raise ConfigError(f"{at}: a plan has stages, and no branch of one twice")
    return study


_hints: Any = functools.cache(typing.get_type_hints)


def _restore(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the dataclass, tuple or plain type `kind`."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _wrong(where, value, "must be a group of keys")
        hints = _hints(kind)
        if value.keys() != hints.keys():
            off = sorted(str(key) for key in value.keys() ^ hints.keys())[0]
            raise ConfigError(f"{where}: the key {names.shown(off)} is {'missing' if off in hints else 'unknown'}")
        return kind(**{key: _restore(hints[key], value[key], f"{where}.{key}") for key in hints})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple:
        args = typing.get_args(kind)
        if not isinstance(value, (list, tuple)):
            raise _wrong(where, value, "must be a list")
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(each) != len(value):
            raise _wrong(where, value, f"must be a list of {len(each)}")
        return tuple(_restore(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))
    if kind is Any:
        return _anything(value, where)
    return _plain(kind, value, where)


def _anything(value: Any, where: str) -> Any:
    """The value of a hyper-parameter: plain, or a list of plain ones."""
    if isinstance(value, list):
        return tuple(_anything(item, where) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, value, "must be finite")
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise _wrong(where, value, "must be plain")
    if isinstance(value, str) and not value.isprintable():
        raise _wrong(where, value, "must have no control characters")
    return value


def _plain(kind: Any, value: Any, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float:
        if not number or not math.isfinite(value) or abs(value) > 1e300:
            raise _wrong(where, value, "must be a finite number")
    elif kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**31) <= value < 2**31:
            raise _wrong(where, value, "must be a whole number")
    elif not isinstance(value, kind):
        raise _wrong(where, value, f"must be of type {kind.__name__}")
    elif isinstance(value, str) and not value.isprintable():
        raise _wrong(where, value, "must have no control characters")
    return value


def _wrong(where: str, value: Any, need: str) -> ConfigError:
    return ConfigError(f"{where}: {names.shown(value)} {need}")
