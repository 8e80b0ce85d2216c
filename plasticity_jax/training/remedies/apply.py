"""The remedies of a stage, put to work at their moments; nothing here knows what any of them does."""

import functools
import inspect
import typing
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.config.remedies import EVERY, MOMENTS
from plasticity_jax.config.remedies import Remedy as Named
from plasticity_jax.config.rules import Check, whole
from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import lookup
from plasticity_jax.models.units import Site
from plasticity_jax.training.remedies.interface import Begun, Network, Now, Remedy, Seen, when
from plasticity_jax.training.remedies.periodic import PERIODIC
from plasticity_jax.training.remedies.regularisers import REGULARISERS
from plasticity_jax.training.remedies.starts import STARTS
from plasticity_jax.training.remedies.updates import UPDATES

Tree = Any
Function = Callable[..., Any] | Remedy
Own = Mapping[str, Function]  # those that a user gives from Python, by name
NONE: Own = {}
OF_UNITS = ("redo", "continual_backprop", "self_normalised_resets")
OF_FEATURES = ("feature_norm", "infer")

BY_MOMENT: dict[str, Mapping[str, Function]] = dict(
    zip(MOMENTS, (REGULARISERS, UPDATES, PERIODIC, STARTS), strict=True)
)


def find(named: Named, own: Own = NONE) -> Remedy:
    """The function of a remedy, with no memory where it needs none.

    Raises:
      ConfigError: there is none of that name.
    """
    remedy = lookup(own if named.name in own else BY_MOMENT[named.moment], named.name, f"remedies.{named.name}")
    return remedy if isinstance(remedy, Remedy) else Remedy(remedy, lambda network, begun: ())


def signatures() -> dict[str, tuple[str, dict[str, Check]]]:
    """Moment and numbers, each with the check of its range, of every remedy of the lab: what a config has to give."""
    by_name = {}
    for moment, functions in BY_MOMENT.items():
        for name, function in functions.items():
            numbers = _numbers(function.act if isinstance(function, Remedy) else function)
            by_name[name] = moment, numbers | ({EVERY: whole(1)} if moment == "periodic" else {})
    return by_name


def _numbers(function: Callable[..., Any]) -> dict[str, Check]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: hints[each.name].__metadata__[0] for each in parameters if each.kind is each.KEYWORD_ONLY}


def rows(stage: spec.Stage) -> tuple[dict[str, np.ndarray], ...]:
    """The numbers of a stage's remedies as data, one dictionary each: float32 scalars, and `every` int32."""
    return tuple(
        {key: np.asarray(value, np.int32 if key == EVERY else np.float32) for key, value in named.numbers}
        for named in stage.remedies
    )


def replaces_weights(stage: spec.Stage) -> bool:
    """Whether weights may become new while others stay, so that each needs a count of its own steps."""
    return any(named.moment == "periodic" for named in stage.remedies)


def acts_at_start(stage: spec.Stage) -> bool:
    """Whether a remedy acts at the start of the stage, and may want its data."""
    return any(named.moment == "start" for named in stage.remedies)


def memories(network: Network, begun: Begun, stage: spec.Stage, own: Own = NONE) -> dict[str, Tree]:
    """What the remedies of a stage remember at its start."""
    return {
        named.name: find(named, own).start(network, begun._replace(key=_keyed(begun.key, named)))
        for named in stage.remedies
    }


def at_start(network: Network, begun: Begun, numbers: Any, stage: spec.Stage, own: Own = NONE) -> Network:
    """The network after what the remedies of a stage do with it at its start, and their memories after that."""
    for named, given in zip(stage.remedies, numbers, strict=True):
        if named.moment == "start":
            network = find(named, own).act(network, begun._replace(key=_keyed(begun.key, named)), **given)
    return network._replace(memory=memories(network, begun, stage, own))


def _keyed(key: Array, named: Named) -> Array:
    """A remedy's own key; by name, so that it draws the same in whatever company."""
    return jax.random.fold_in(key, zlib.crc32(named.name.encode()))


def penalty(seen: Seen, memory: Mapping[str, Tree], numbers: Any, stage: spec.Stage, own: Own = NONE) -> Array:
    """The terms that the regularisers of a stage add to the loss of a batch."""
    total = jnp.float32(0)
    for named, given in zip(stage.remedies, numbers, strict=True):
        if named.moment == "regulariser":
            total += find(named, own).act(seen._replace(memory=memory[named.name]), **given)
    return total


def after_step(network: Network, now: Now, numbers: Any, stage: spec.Stage, own: Own = NONE) -> Network:
    """The network after what the remedies of a stage do with it after a step; `now.key` is that of the step."""
    for named, given in zip(stage.remedies, numbers, strict=True):
        remedy = find(named, own)
        here = now._replace(key=_keyed(now.key, named))
        if remedy.watch:
            memory = remedy.watch(network.memory[named.name], network, here, given)
            network = network._replace(memory=network.memory | {named.name: memory})
        if named.moment == "update":
            network = remedy.act(network, here, **given)
        if named.moment == "periodic":
            numbers_of = {key: value for key, value in given.items() if key != EVERY}
            act = functools.partial(remedy.act, now=here, **numbers_of)
            network = when(here.step % given[EVERY] == 0, act, network)
    return network


def check(named: Named, own: Own) -> None:
    """Raise a ConfigError if there is no such remedy, or if it takes other numbers than it is given."""
    given = {key for key, _ in named.numbers} - {EVERY}
    taken = set(inspect.signature(find(named, own).act).parameters.values())
    wanted = {each.name for each in taken if each.kind is each.KEYWORD_ONLY}
    if given != wanted:
        raise ConfigError(
            f"remedies.{named.name}: takes the numbers {', '.join(sorted(wanted)) or 'none'} (its keyword arguments), "
            f"and is given {', '.join(sorted(given)) or 'none'}"
        )


def check_network(stage: spec.Stage, sites: Sequence[Site], features: Collection[str]) -> None:
    """Raise a ConfigError if a network with these units and features has not what a remedy of the stage works on."""
    for named in stage.remedies:
        where = f"stage {stage.name}: remedies.{named.name}"
        if named.name in OF_UNITS and not sites:
            raise ConfigError(
                f"{where}: the network names no units that could be replaced; give it layers, or a user's network a "
                "method `units` (plasticity_jax/models/units.py)"
            )
        if named.name in OF_FEATURES and "penultimate" not in features:
            raise ConfigError(f"{where}: the network returns no features; return (logits, features) with `penultimate`")
