"""Remedies applied every few steps: functions of (network, now, numbers), by name in `PERIODIC`.

All of them have the number `every`, the steps between two applications, which is not passed to the function.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.rules import real, whole
from plasticity_jax.models import units
from plasticity_jax.training.remedies.interface import Begun, Network, Now, Remedy, when
from plasticity_jax.training.remedies.replacement import renew, replace_units

Tree = Any
Share = Annotated[Array, real("[0, 1]")]
Amount = Annotated[Array, real("[0, inf)")]
TIMES = 64  # firing intervals that SNR stores for each unit


def redo(network: Network, now: Now, *, threshold: Amount) -> Network:
    """ReDo: replaces units whose score is at most `threshold`; their outgoing weights become zero.

    Sokar et al. 2023 (arXiv 2302.12902), algorithm 1: the score is E|h| divided by the mean of E|h| in the layer (plus
    1e-9), with E over the batch of this step in train mode, and over positions for channels.  All scores are computed
    before any weight changes.  The paper's grids: threshold 0, 0.01 and 0.1, every 1e3, 1e4 and 1e5 steps.
    """
    chosen = {}
    for site in now.sites:
        level = now.activity[site.name]["level"] / now.examples
        chosen[site.name] = level / (jnp.mean(level) + 1e-9) <= threshold
    return replace_units(network, now.sites, chosen, now.fresh(now.key))


def continual_backprop(
    network: Network, now: Now, *, rate: Share, maturity: Annotated[Array, whole(0)], decay: Share
) -> Network:
    """Continual backprop: in each layer, replaces a fraction `rate` of the mature units per step, of least utility.

    Dohare et al. 2024 (Nature 632), algorithm 1, with `every` = 1.  The utility is a running mean (`decay`) of |h|
    times the sum of the magnitudes of the outgoing weights, bias-corrected as in the released code; units are mature
    after `maturity` steps.  Fractions of a unit accumulate.  The next layer's bias does not compensate for the replaced
    unit, as in the paper's algorithm but not in the released code.  The paper's values: rate 1e-5 and maturity 1000
    with a ResNet on CIFAR-100, 3e-4 and 100 on ImageNet; decay 0.99.
    """
    memory, chosen = network.memory["continual_backprop"], {}
    owed = dict(memory["owed"])
    for site in now.sites:
        age = memory["age"][site.layer]
        mature = age > maturity
        utility = memory["utility"][site.layer] / jnp.maximum(1 - decay**age, 1e-6)
        due = owed[f"{site.layer}/owed"] + rate * jnp.sum(mature)
        count = jnp.floor(due)
        place = jnp.argsort(jnp.argsort(jnp.where(mature, utility, jnp.inf)))
        chosen[site.name] = mature & (place < count)
        owed[f"{site.layer}/owed"] = due - count
    network = _with(network, "continual_backprop", memory | {"owed": owed})
    return _replace_any(network, now, chosen)


def utilities(network: Network, begun: Begun) -> dict[str, Tree]:
    """The initial memory: utility and age of each unit, and each layer's accumulated fraction of a unit; all zero."""
    del begun
    zeros = units.by_unit(network.params)
    return {"utility": zeros, "age": zeros, "owed": {f"{layer}/owed": jnp.float32(0) for layer in zeros}}


def follow_utilities(memory: dict[str, Tree], network: Network, now: Now, numbers: Mapping[str, Array]) -> Any:
    """The memory after another step: updated utilities and ages."""
    utility, age = dict(memory["utility"]), dict(memory["age"])
    for site in now.sites:
        here = now.activity[site.name]["level"] / now.examples * units.outgoing(network.params, site)
        utility[site.layer] = numbers["decay"] * utility[site.layer] + (1 - numbers["decay"]) * here
        age[site.layer] = age[site.layer] + 1
    return memory | {"utility": utility, "age": age}


def self_normalised_resets(network: Network, now: Now, *, rejection: Share) -> Network:
    """SNR: replaces a unit that has been silent for significantly longer than usual.

    Farias & Jozefiak 2024 (2410.20098), algorithm 1, with `every` = 1: a unit fires in a step if it is above zero for
    some example of the batch.  It is replaced if a fraction of at most `rejection` of its past firing intervals is as
    long as its current silence.  The paper does not specify the distribution; here it is that of the unit's last 64
    intervals, and until there are 64, of the last interval of all units in its layer, once half of them have one.
    """
    memory, chosen = network.memory["self_normalised_resets"], {}
    for site in now.sites:
        since, times, counted = (memory[key][site.layer] for key in ("since", "times", "known"))
        as_long = jnp.sum(times >= since[:, None], 1) / TIMES
        chosen[site.name] = jnp.where(counted >= TIMES, as_long, _of_layer(since, times, counted)) <= rejection
    return _replace_any(network, now, chosen)


def _of_layer(since: Array, times: Array, counted: Array) -> Array:
    """For each unit, the fraction of its layer's last intervals as long as its silence; 2 if there are too few."""
    some = counted > 0
    last = jnp.sum(jnp.where(jnp.arange(TIMES) == ((counted - 1) % TIMES)[:, None], times, 0), 1)
    count = jnp.sum(some)
    as_long = jnp.sum(some & (last >= since[:, None]), 1)
    return jnp.where(2 * count >= len(counted), as_long / jnp.maximum(count, 1), 2.0)


def silences(network: Network, begun: Begun) -> dict[str, Tree]:
    """The initial memory of each unit: steps since it fired, its last firing intervals, and the number of these."""
    del begun
    zeros = units.by_unit(network.params)
    times = {layer: jnp.zeros((len(leaf), TIMES), jnp.float32) for layer, leaf in zeros.items()}
    return {"since": zeros, "times": times, "known": zeros}


def follow_silences(memory: dict[str, Tree], network: Network, now: Now, numbers: Mapping[str, Array]) -> Any:
    """The memory after another step; the interval of firings in successive steps is 1."""
    del network, numbers
    since, times, counted = (dict(memory[key]) for key in ("since", "times", "known"))
    for site in now.sites:
        fires, layer = now.activity[site.name]["fired"] > 0, site.layer
        silent = since[layer] + 1
        place = jnp.arange(TIMES) == (counted[layer] % TIMES)[:, None]
        times[layer] = jnp.where(place & fires[:, None], silent[:, None], times[layer])
        since[layer] = jnp.where(fires, 0.0, silent)
        counted[layer] = counted[layer] + fires
    return {"since": since, "times": times, "known": counted}


def shrink_and_perturb(network: Network, now: Now, *, shrink: Amount, perturb: Amount) -> Network:
    """All parameters become shrink * old + perturb * fresh: Ash & Adams 2020 (1910.08475), here every few steps.

    The noise is a fresh network, as in `resets`; moments and running statistics are kept.
    """
    fresh, _ = now.fresh(now.key)
    return network._replace(params=jax.tree.map(lambda a, b: shrink * a + perturb * b, network.params, fresh))


def hare_tortoise(network: Network, now: Now, *, decay: Share) -> Network:
    """Hare & Tortoise: resets the network to its moving average: Lee et al. 2024 (2406.02596), algorithm 1.

    The tortoise is an exponential moving average (`decay`, 0.999) of parameters and running statistics; it is not
    reset.  Moments are kept.  The paper's interval is 10 epochs.  To evaluate the tortoise too, set the stage's `ema`.
    """
    del now, decay
    params, stats = network.memory["hare_tortoise"]
    return network._replace(params=params, stats=stats)


def slow_weights(network: Network, begun: Begun) -> tuple[Tree, Tree]:
    """The initial tortoise: a copy of the network."""
    del begun
    return network.params, network.stats


def follow_slowly(memory: Tree, network: Network, now: Now, numbers: Mapping[str, Array]) -> Tree:
    """The tortoise after another step."""
    del now
    decay = numbers["decay"]
    return jax.tree.map(lambda slow, fast: decay * slow + (1 - decay) * fast, memory, (network.params, network.stats))


def selective_reinitialisation(network: Network, now: Now, *, share: Share) -> Network:
    """Redraws the fraction `share` of each kernel's entries with the least utility |w g| from the initial distribution.

    Hernandez-Garcia et al. 2025 (CoLLAs), "selective weight reinitialisation", with the gradient utility; g is the
    gradient of this step.  The paper's share is 0.001.
    """
    fresh, _ = now.fresh(now.key)

    def least(leaf: Array, slope: Array) -> Array:
        if leaf.ndim < 2:
            return jnp.zeros((), bool)
        utility = jnp.abs(leaf * slope)
        place = jnp.argsort(jnp.argsort(utility.reshape(-1))).reshape(leaf.shape)
        return place < jnp.floor(share * leaf.size)

    chosen = jax.tree.map(least, network.params, now.grads)
    return renew(network._replace(params=jax.tree.map(jnp.where, chosen, fresh, network.params)), chosen)


def _with(network: Network, name: str, memory: Tree) -> Network:
    return network._replace(memory=network.memory | {name: memory})


def _replace_any(network: Network, now: Now, chosen: units.Chosen) -> Network:
    """Replaces the chosen units; draws fresh weights only if there are any."""
    some = jnp.any(jnp.concatenate([jnp.zeros(1, bool), *chosen.values()]))
    return when(some, lambda old: replace_units(old, now.sites, chosen, now.fresh(now.key)), network)


PERIODIC: dict[str, Callable[..., Network] | Remedy] = {
    "redo": redo,
    "continual_backprop": Remedy(continual_backprop, utilities, follow_utilities),
    "self_normalised_resets": Remedy(self_normalised_resets, silences, follow_silences),
    "shrink_and_perturb": shrink_and_perturb,
    "hare_tortoise": Remedy(hare_tortoise, slow_weights, follow_slowly),
    "selective_reinitialisation": selective_reinitialisation,
}
