"""Parses the remedies of a stage: `{"redo": {"every": 1000, "threshold": 0.1}, "l2_init": {"strength": 0.01}}`.

The numbers of a remedy are the keyword arguments of its function.  A custom remedy also gives its `moment`:
`{"my_remedies:shake": {"moment": "periodic", "every": 100, "scale": 0.1}}`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, cast

from plasticity_jax.config import rules
from plasticity_jax.config.rules import Check, Names
from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import OWN

MOMENTS = ("regulariser", "update", "periodic", "start")
EVERY = "every"  # steps between two applications; every `periodic` remedy has this number

Signatures = Mapping[str, tuple[str, Mapping[str, Check]] | None]  # moment and numbers by name; None for a custom one


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One remedy of a stage.

    name: of a function in `training.remedies`, or `module:function`.
    moment: when it acts: `regulariser` (a term of the loss), `update` (after each step), `periodic` (after every
        `every` steps) or `start` (at the start of the stage).
    numbers: its numbers by name, sorted; traced, so they may differ between runs of one program.
    """

    name: Annotated[str, rules.some_text]
    moment: Annotated[str, rules.one_of(MOMENTS)]
    numbers: tuple[tuple[str, float], ...]


def programs(remedies: tuple[Remedy, ...]) -> tuple[str, ...]:
    """The compiled part of remedies: their names, moments and the names of their numbers."""
    return tuple(f"{one.moment} {one.name}({', '.join(key for key, _ in one.numbers)})" for one in remedies)


class ByName(rules.ByNames):
    """The rule for a field of remedies: a mapping by name in a config, a list in config.json."""

    def check(self, names: Names | None) -> Check:
        if names is None:
            return rules.several(rules.record(Remedy, None), distinct=False, split=False)
        signatures = cast(Signatures, names["remedies"])

        def check(value: Any, where: str) -> tuple[Remedy, ...]:
            if not isinstance(value, Mapping):
                raise rules.error(where, value, "must be a group of remedies by name, each with its numbers")
            return tuple(_remedy(signatures, name, numbers, f"{where}.{name}") for name, numbers in value.items())

        return check


def _remedy(signatures: Signatures, name: str, given: Any, where: str) -> Remedy:
    signature = signatures.get(name)
    if signature:
        moment, checks = signature
        numbers = rules.group(dict, **checks)(given, where)
        return Remedy(name, moment, tuple(sorted(numbers.items())))
    if name not in signatures and not OWN.fullmatch(name):
        raise rules.unknown(where.rpartition(f".{name}")[0], name, list(signatures))
    if not isinstance(given, Mapping) or "moment" not in given:
        raise ConfigError(f"{where}: say when it acts, as moment={'|'.join(MOMENTS)}, with its numbers")
    moment = rules.one_of(MOMENTS)(given["moment"], f"{where}.moment")
    keys = [key for key in given if key != "moment"]
    if moment == "periodic" and EVERY not in keys:
        raise ConfigError(f"{where}: the key {EVERY} is missing")
    checks_of = {key: rules.whole(1) if key == EVERY else rules.real("(-inf, inf)") for key in keys}
    return Remedy(name, moment, tuple(sorted((key, checks_of[key](given[key], f"{where}.{key}")) for key in keys)))
