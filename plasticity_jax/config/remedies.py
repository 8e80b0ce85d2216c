"""Remedies of a stage in a config: `{"redo": {"every": 1000, "threshold": 0.1}, "l2_init": {"strength": 0.01}}`.

The numbers of a remedy are the keyword arguments of its function.  One that a user brings also says its `moment`:
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
EVERY = "every"  # the number of every `periodic` remedy: steps from one time to the next

Known = Mapping[str, tuple[str, Mapping[str, Check]] | None]  # moment and numbers by name; None for one of a user


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One remedy of a stage.

    name: of a function in `training.remedies`, or a user's own.
    moment: when it acts: `regulariser` (a term of the loss), `update` (after each step), `periodic` (after every so
        many steps) or `start` (at the start of the stage).
    numbers: its numbers by name, sorted; data, so they may differ between runs of one program.
    """

    name: Annotated[str, rules.some_text]
    moment: Annotated[str, rules.one_of(MOMENTS)]
    numbers: tuple[tuple[str, float], ...]


def programs(remedies: tuple[Remedy, ...]) -> tuple[str, ...]:
    """What is compiled of remedies: which there are, when they act, and the names of their numbers."""
    return tuple(f"{each.moment} {each.name}({', '.join(key for key, _ in each.numbers)})" for each in remedies)


class ByName(rules.ByNames):
    """The rule of a field with remedies: a group by name in a config, a list where a study is read back."""

    def check(self, names: Names | None) -> Check:
        if names is None:
            return rules.several(rules.record(Remedy, None), distinct=False, split=False)
        known = cast(Known, names["remedies"])

        def check(value: Any, where: str) -> tuple[Remedy, ...]:
            if not isinstance(value, Mapping):
                raise rules.error(where, value, "must be a group of remedies by name, each with its numbers")
            return tuple(_remedy(known, name, numbers, f"{where}.{name}") for name, numbers in value.items())

        return check


def _remedy(known: Known, name: str, given: Any, where: str) -> Remedy:
    signature = known.get(name)
    if signature:
        moment, checks = signature
        numbers = rules.group(dict, **checks)(given, where)
        return Remedy(name, moment, tuple(sorted(numbers.items())))
    if name not in known and not OWN.fullmatch(name):
        raise rules.unknown(where.rpartition(f".{name}")[0], name, list(known))
    if not isinstance(given, Mapping) or "moment" not in given:
        raise ConfigError(f"{where}: say when it acts, as moment={'|'.join(MOMENTS)}, beside its numbers")
    moment = rules.one_of(MOMENTS)(given["moment"], f"{where}.moment")
    keys = [key for key in given if key != "moment"]
    if moment == "periodic" and EVERY not in keys:
        raise ConfigError(f"{where}: the key {EVERY} is missing")
    checks_of = {key: rules.whole(1) if key == EVERY else rules.real("(-inf, inf)") for key in keys}
    return Remedy(name, moment, tuple(sorted((key, checks_of[key](given[key], f"{where}.{key}")) for key in keys)))
