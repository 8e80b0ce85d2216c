"""Rules that annotate the fields of `spec`: what a field may hold, and whether it is compiled.

    rate: Annotated[float, real("(0, inf)")]                  any positive number; traced, so it may differ between runs
    name: Annotated[str, NameOf("optimizers"), COMPILED]      a key of that dict; equal for all runs of one program

Checks of configs, records restored from JSON and the compiled fields of a stage all follow from these annotations.  A
check takes (value, path) and returns the value as the dataclass stores it, or raises a `ConfigError` of one line.
"""

import dataclasses
import difflib
import functools
import math
import numbers
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from plasticity_jax.config import validate
from plasticity_jax.config.names import LONGEST, shown
from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import OWN

Check = Callable[[Any, str], Any]
Names = Mapping[str, Collection[str]]  # the names that a config may use, by the `kind` of a `NameOf`

LARGEST = 2**31 - 1  # steps, seeds and indices are int32 on the device


class ByNames:
    """A rule whose check depends on the names that a config may use."""

    def check(self, names: Names | None) -> Check:
        """Returns the check; None for `names` allows any name, for a study restored from a file."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class NameOf(ByNames):
    """A key of the dict of functions called `kind`, or with `many` a tuple of keys.

    `empty` also allows the empty string, `custom` also a `module:function`.
    """

    kind: str
    many: bool = False
    empty: bool = False
    custom: bool = False

    def check(self, names: Names | None) -> Check:
        if names is None:
            return several(some_text) if self.many else text
        name = one_of(names[self.kind], self.empty, self.custom)
        return several(name) if self.many else name


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Marks a field whose value `of(field)` is compiled into the program, so it is equal for all runs of a group."""

    of: Callable[[Any], Any]
    suffix: str = ""


COMPILED = Compiled(lambda value: value)
COMPILED_IF_ANY = Compiled(lambda value: value > 0, " > 0")  # 0 removes a part of the program
COMPILED_COUNT = Compiled(len)


_hints: Any = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


def record(kind: Any, names: Names | None, without: Sequence[str] = (), free: Sequence[str] = ()) -> Check:
    """A check that turns a mapping into the dataclass `kind`.

    With fields left out (`without`) or additional unchecked keys (`free`) it returns a dict instead.
    """
    fields = {name: _check(hint, names) for name, hint in _hints(kind).items() if name not in without}
    return group(dict if without or free else kind, **fields, **dict.fromkeys(free, anything))


def _check(hint: Any, names: Names | None) -> Check:
    if dataclasses.is_dataclass(hint):
        return record(hint, names)
    if typing.get_origin(hint) is typing.Annotated:
        rule = hint.__metadata__[0]
        return rule.check(names) if isinstance(rule, ByNames) else rule
    if typing.get_origin(hint) is tuple:
        first, *rest = typing.get_args(hint)
        return several(_check(first, names), distinct=False, split=False) if rest == [...] else _row(hint, names)
    return text if hint is str else plain


def _row(hint: Any, names: Names | None) -> Check:
    """A tuple of fixed length, with one check for each place."""
    checks = [_check(kind, names) for kind in typing.get_args(hint)]

    def check(value: Any, where: str) -> tuple:
        if not isinstance(value, (tuple, list)) or len(value) != len(checks):
            raise error(where, value, f"must be a tuple of {len(checks)}")
        return tuple(one(item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(checks, value, strict=True)))

    return check


def compiled(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every compiled field of a record; one None for a group that is `unused`."""
    kind: Any = type(record)
    for name, is_group, rules in _marks(kind):
        value, path = getattr(record, name), prefix + name
        if is_group:
            unused = name in getattr(record, "unused", ())
            yield from [(path, None)] if unused else compiled(value, f"{path}.")
        for rule in rules:
            yield path + rule.suffix, rule.of(value)


@functools.cache
def _marks(kind: Any) -> list[tuple[str, bool, list[Compiled]]]:
    """(field, whether it is a group, its `Compiled` rules) of a dataclass, without fields that have neither."""
    marks = [
        (
            name,
            dataclasses.is_dataclass(hint),
            [r for r in getattr(hint, "__metadata__", ()) if isinstance(r, Compiled)],
        )
        for name, hint in _hints(kind).items()
    ]
    return [mark for mark in marks if any(mark[1:])]


def error(where: str, value: Any, need: str) -> ConfigError:
    """The error that names a path, its value, and what it has to be."""
    return ConfigError(f"{where}={shown(value, 200)}: {need}")


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # bool is a subclass of int


def whole(low: int) -> Check:
    """An integer in [`low`, 2**31 - 1]."""

    def check(value: Any, where: str) -> int:
        if not _is(numbers.Integral, value):
            raise error(where, value, f"must be a whole number, at least {low}")
        if not low <= value <= LARGEST:
            raise error(where, value, f"must be at least {low}" if value < low else f"must be at most {LARGEST}")
        return int(value)

    return check


def real(interval: str) -> Check:
    """A finite number in an interval written like `(0, 1]`."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def check(value: Any, where: str) -> float:
        if not _is(numbers.Real, value):
            raise error(where, value, f"must be a number in {interval}")
        above = low < value or (interval[0] == "[" and value == low)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below and abs(value) < 1e300):  # neither inf nor an int too large for a float
            raise error(where, value, f"must be in {interval}")
        return float(value)

    return check


def truth(value: Any, where: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise error(where, value, "must be True or False")
    return value


def text(value: Any, where: str) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        raise error(where, value, "must be a string")
    if not value.isprintable():
        raise error(where, value, "must have no control characters")
    return value


def some_text(value: Any, where: str) -> str:
    """A string that is not blank."""
    if not text(value, where).strip():
        raise error(where, value, "must not be empty")
    return value


def one_of(choices: Collection[str], empty: bool = False, custom: bool = False) -> Check:
    """One of the choices; `empty` also allows the empty string, `custom` a `module:function`."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise error(where, value, f"must be a string, one of {', '.join(choices)}")
        if value in choices or (empty and not value) or (custom and OWN.fullmatch(value)):
            return value
        close = difflib.get_close_matches(value, choices, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        if not choices:
            raise error(where, value, "unknown name; leave it empty, or pass a custom one from Python")
        raise error(where, value, f"choose one of {', '.join(choices)}{hint}")

    return check


def several(check_one: Check, least: int = 0, distinct: bool = True, split: bool = True) -> Check:
    """A tuple of at least `least` values, without repetition if `distinct`.

    With `split`, strings are split at commas, since `a,b` on a command line is one string.
    """

    def check(value: Any, where: str) -> tuple:
        if not isinstance(value, (tuple, list)):
            raise error(where, value, "must be a tuple")
        apart = split and _all_text(value)
        items = [part.strip() for item in value for part in item.split(",")] if apart else value
        checked = tuple(check_one(item, f"{where}[{i}]") for i, item in enumerate(items))
        if len(checked) < least:
            raise error(where, value, f"must have at least {least}")
        if distinct and len(set(checked)) < len(checked):
            raise error(where, value, "must not repeat a value")
        return checked

    return check


def _all_text(value: Any) -> bool:
    return all(isinstance(item, str) for item in value)


def group(make: Callable[..., Any], **fields: Check) -> Check:
    """A mapping with exactly these keys, passed to `make` as keyword arguments."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise error(where, value, f"must be a group with the keys {_few(list(fields))}")
        missing = [key for key in fields if key not in value]
        for key in value:
            if key not in fields:
                raise unknown(where, key, missing or list(fields))
        if missing:
            raise ConfigError(f"{where}: the key {missing[0]} is missing")
        return make(**{key: one(value[key], f"{where}.{key}") for key, one in fields.items()})

    return check


def _few(keys: Sequence[str], most: int = 10) -> str:
    return ", ".join([*keys[:most], *([".."] if len(keys) > most else [])])


def unknown(where: str, key: str, keys: Collection[str]) -> ConfigError:
    """The error for a key that is not one of `keys`."""
    close = max(keys, key=lambda name: validate.likeness(name, key))
    written = key if str(key).isprintable() and len(key) <= LONGEST else shown(key)
    return ConfigError(f"{where}.{written}: there is no such key; did you mean {where}.{close}?")


def plain(value: Any, where: str) -> Any:
    """The value of a hyper-parameter: a string, a finite number, a bool, None, or a tuple of these."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(item, where) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise error(where, value, "must be finite")
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise error(where, value, "must be a string, a number, a bool or None")
    return text(value, where) if isinstance(value, str) else value


def anything(value: Any, where: str) -> Any:
    """A value that is checked elsewhere."""
    return value
