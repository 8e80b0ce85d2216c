"""Resets between stages: `shrink * old + perturb * fresh` on a mask of the parameters.

(0, 1) re-initialises a module (Berariu et al. 2021, section A.5), (0.4, 0.1) is shrink and perturb (Ash & Adams
2020, section 4; their noise is also a scaled fresh network), (1, 0) changes nothing.  The factors are traced, one
pair per parameter leaf, so runs with different resets share one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.models import parameters
from plasticity_jax.training import optimizers
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.remedies.interface import Begun, Network
from plasticity_jax.training.state import TrainState, create

Tree = Any
CustomReset = Callable[[TrainState, TrainState], TrainState]

# Further resets by name, for `reset.function`: (state, fresh state) -> state, applied last.
RESETS: dict[str, CustomReset] = {}


class Factors(NamedTuple):
    """A `Reset` as numbers: trees like the parameters, statistics and optimiser state, of float32 or bool scalars.

    shrink, perturb: of each parameter leaf.
    fresh_stats: whether a statistics leaf is re-initialised.
    fresh_opt: whether an optimiser leaf becomes zero.
    """

    shrink: Tree
    perturb: Tree
    fresh_stats: Tree
    fresh_opt: Tree


class Given(NamedTuple):
    """Additional inputs for a stage with remedies.

    initial: the initial weights of the run's seed.  numbers: of the remedies.  custom: remedies given from Python.
    key, sweep: as in `Begun`.
    """

    initial: Tree
    numbers: Any
    custom: Custom
    key: jax.Array
    sweep: Any


def factors(reset: spec.Reset, like: TrainState) -> Factors:
    """The factors of `reset` for a state shaped like `like`.

    Raises:
      ConfigError: a module name matches no parameter.
    """
    nothing = jax.tree.map(lambda _: np.False_, like.params)
    chosen = parameters.select(like.params, reset.modules) if reset.modules else nothing
    modules = {path.rpartition("/")[0] for path, hit in parameters.paths(chosen).items() if hit}

    def stats_leaf(path: str) -> np.bool_:
        inside = path.rpartition("/")[0] in modules
        return np.bool_(reset.statistics == "all" or (reset.statistics == "modules" and inside))

    def opt_leaf(inside: bool) -> np.bool_:
        return np.bool_(reset.optimiser == "all" or (reset.optimiser == "modules" and inside))

    return Factors(
        shrink=jax.tree.map(lambda hit: np.float32(reset.shrink if hit else 1.0), chosen),
        perturb=jax.tree.map(lambda hit: np.float32(reset.perturb if hit else 0.0), chosen),
        fresh_stats=_by_path(stats_leaf, like.stats),
        fresh_opt=jax.tree.map(opt_leaf, optimizers.of_parameters(like.opt, chosen)),
    )


def begin(
    params: Tree,
    stats: Tree,
    opt: Tree,
    fresh_params: Tree,
    fresh_stats: Tree,
    f: Factors,
    stage: spec.Stage,
    function: CustomReset | None = None,
    given: Given | None = None,
) -> TrainState:
    """The state at the start of a stage: the network before, after the stage's reset and its remedies at the start.

    `function` is a further reset, (state, fresh state) -> state, applied after the factors.
    """
    fresh = create(fresh_params, fresh_stats, stage, given.custom if given else NONE)
    state = _mixed(fresh, (params, stats, opt), (fresh_params, fresh_stats, fresh.opt), f)
    state = function(state, fresh) if function else state
    if given:
        drawn = jax.tree.map(lambda shrink: shrink == 0, f.shrink)
        first = jax.tree.map(jnp.where, drawn, state.params, given.initial)
        network = Network(state.params, state.stats, state.opt, {})
        begun = Begun(first, (params, stats), given.key, given.sweep)
        network = apply.at_start(network, begun, given.numbers, stage, given.custom)
        state = state.replace(params=network.params, stats=network.stats, opt=network.opt, remedy=network.memory)
    return state.replace(average=(state.params, state.stats)) if stage.ema else state


def again(state: TrainState, fresh_params: Tree, fresh_stats: Tree, f: Factors) -> TrainState:
    """Repeats the reset within a stage; the step count and the memories of remedies are kept."""
    fresh = fresh_params, fresh_stats, jax.tree.map(jnp.zeros_like, state.opt)
    state = _mixed(state, (state.params, state.stats, state.opt), fresh, f)
    return state.replace(average=(state.params, state.stats)) if state.average else state


def _mixed(state: TrainState, old: tuple[Tree, Tree, Tree], fresh: tuple[Tree, Tree, Tree], f: Factors) -> TrainState:
    """`state` with parameters, statistics and moments mixed from those of an old and a fresh network."""
    (params, stats, opt), (fresh_params, fresh_stats, fresh_opt) = old, fresh

    def mix(old: jax.Array, new: jax.Array, shrink: jax.Array, perturb: jax.Array) -> jax.Array:
        # A term with factor 0 is left out: 0 * NaN is NaN, and -0.0 + 0 is 0.0.
        kept = jnp.where(shrink == 0, 0, shrink * old)
        return jnp.where(perturb == 0, kept, kept + perturb * new)

    def choose(is_fresh: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(is_fresh, new, old)

    return state.replace(
        params=jax.tree.map(mix, params, fresh_params, f.shrink, f.perturb),
        stats=jax.tree.map(choose, f.fresh_stats, stats, fresh_stats),
        opt=jax.tree.map(choose, f.fresh_opt, opt, fresh_opt),
    )


def _by_path(decide: Callable[[str], np.bool_], tree: Tree) -> Tree:
    decided = iter([decide(path) for path in parameters.paths(tree)])
    return jax.tree.map(lambda _: next(decided), tree)
