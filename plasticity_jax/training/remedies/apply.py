"""Calls the remedies of a stage at their moments, with their numbers, keys and memories."""

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
Custom = Mapping[str, Function]  # remedies given from Python, by name
NONE: Custom = {}
OF_UNITS = ("redo", "continual_backprop", "self_normalised_resets")
OF_FEATURES = ("feature_norm", "infer")

BY_MOMENT: dict[str, Mapping[str, Function]] = dict(
    zip(MOMENTS, (REGULARISERS, UPDATES, PERIODIC, STARTS), strict=True)
)


def find(named: Named, custom: Custom = NONE) -> Remedy:
    """The remedy of that name, as a `Remedy`; its memory is empty if it needs none.

    Raises:
      ConfigError: there is no such remedy.
    """
    remedy = lookup(custom if named.name in custom else BY_MOMENT[named.moment], named.name, f"remedies.{named.name}")
    return remedy if isinstance(remedy, Remedy) else Remedy(remedy, lambda network, begun: ())


def signatures() -> dict[str, tuple[str, dict[str, Check]]]:
    """For every built-in remedy its moment, and its numbers, each with the check of its range."""
    by_name = {}
    for moment, functions in BY_MOMENT.items():
        for name, function in functions.items():
            numbers = _numbers(function.act if isinstance(function, Remedy) else function)
            by_name[name] = moment, numbers | ({EVERY: whole(1)} if moment == "periodic" else {})
    return by_name


@functools.cache
def _numbers(function: Callable[..., Any]) -> dict[str, Check]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {arg.name: hints[arg.name].__metadata__[0] for arg in parameters if arg.kind is arg.KEYWORD_ONLY}


def rows(stage: spec.Stage) -> tuple[dict[str, np.ndarray], ...]:
    """The numbers of a stage's remedies as arrays, one dictionary each: float32 scalars, `every` int32."""
    return tuple(
        {key: np.asarray(value, np.int32 if key == EVERY else np.float32) for key, value in named.numbers}
        for named in stage.remedies
    )


def replaces_weights(stage: spec.Stage) -> bool:
    """Whether single weights may be replaced, so that each needs its own step count in the optimiser."""
    return any(named.moment == "periodic" for named in stage.remedies)


def acts_at_start(stage: spec.Stage) -> bool:
    """Whether a remedy acts at the start of the stage; it may need the stage's data."""
    return any(named.moment == "start" for named in stage.remedies)


def memories(network: Network, begun: Begun, stage: spec.Stage, custom: Custom = NONE) -> dict[str, Tree]:
    """The memories of a stage's remedies at its start, by name."""
    return {
        named.name: find(named, custom).start(network, begun._replace(key=_keyed(begun.key, named)))
        for named in stage.remedies
    }


def at_start(network: Network, begun: Begun, numbers: Any, stage: spec.Stage, custom: Custom = NONE) -> Network:
    """The network after the remedies that act at the start of a stage, with the initial memories of all remedies."""
    for named, given in zip(stage.remedies, numbers, strict=True):
        if named.moment == "start":
            network = find(named, custom).act(network, begun._replace(key=_keyed(begun.key, named)), **given)
    return network._replace(memory=memories(network, begun, stage, custom))


def _keyed(key: Array, named: Named) -> Array:
    """The key of a remedy: folds its name into `key`, so draws do not depend on the stage's other remedies."""
    return jax.random.fold_in(key, zlib.crc32(named.name.encode()))


def penalty(
    observed: Seen, memory: Mapping[str, Tree], numbers: Any, stage: spec.Stage, custom: Custom = NONE
) -> Array:
    """The sum of the terms that the regularisers of a stage add to the loss of a batch, float32 scalar."""
    total = jnp.float32(0)
    for named, given in zip(stage.remedies, numbers, strict=True):
        if named.moment == "regulariser":
            total += find(named, custom).act(observed._replace(memory=memory[named.name]), **given)
    return total


def after_step(network: Network, now: Now, numbers: Any, stage: spec.Stage, custom: Custom = NONE) -> Network:
    """The network after the remedies that act after a step; `now.key` is the key of the step."""
    for named, given in zip(stage.remedies, numbers, strict=True):
        remedy = find(named, custom)
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


def check(named: Named, custom: Custom) -> None:
    """Raises a ConfigError if there is no such remedy, or if its numbers are not those of its signature."""
    given = {key for key, _ in named.numbers} - {EVERY}
    taken = set(inspect.signature(find(named, custom).act).parameters.values())
    wanted = {arg.name for arg in taken if arg.kind is arg.KEYWORD_ONLY}
    if given != wanted:
        raise ConfigError(
            f"remedies.{named.name}: takes the numbers {', '.join(sorted(wanted)) or 'none'} (its keyword arguments), "
            f"and is given {', '.join(sorted(given)) or 'none'}"
        )


def check_network(stage: spec.Stage, sites: Sequence[Site], features: Collection[str]) -> None:
    """Raises a ConfigError if a remedy of the stage needs units or features that the network does not have."""
    for named in stage.remedies:
        where = f"stage {stage.name}: remedies.{named.name}"
        if named.name in OF_UNITS and not sites:
            raise ConfigError(
                f"{where}: the network names no units that could be replaced; give it layers, or a custom network a "
                "method `units` (plasticity_jax/models/units.py)"
            )
        if named.name in OF_FEATURES and "penultimate" not in features:
            raise ConfigError(f"{where}: the network returns no features; return (logits, features) with `penultimate`")
