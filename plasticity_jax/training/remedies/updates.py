"""Remedies applied after every step: functions of (network, now, numbers), by name in `UPDATES`."""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.rules import real
from plasticity_jax.models import module_names, parameters, units
from plasticity_jax.training.remedies.interface import Begun, Network, Now, Remedy

Tree = Any
Share = Annotated[Array, real("[0, 1]")]
TINY = 1e-12


def weight_clipping(network: Network, now: Now, *, bound: Annotated[Array, real("(0, inf)")]) -> Network:
    """Clips kernels and biases to +-bound / sqrt(fan-in): Elsayed et al. 2024 (arXiv 2407.01704), algorithm 1.

    1 / sqrt(fan-in) is the bound of a uniform initial distribution; the paper tries bounds of 1 to 5.  A bias uses the
    fan-in of its kernel, as in the released code.  Scale and offset of normalisations are not clipped.
    """
    del now
    params = network.params
    for layer in units.by_unit(params):
        edge = bound / math.sqrt(math.prod(units.at(params, layer)["kernel"].shape[:-1]))
        params = _replaced(params, layer, functools.partial(jnp.clip, min=-edge, max=edge))
    return network._replace(params=params)


def soft_weight_rescaling(network: Network, now: Now, *, rate: Share) -> Network:
    """SWR: pulls the norm of each kernel W to its initial value: W times (rate |W_0| + (1 - rate) |W|) / |W|.

    The biases of a perceptron are multiplied by the product of the factors up to their layer, so that its output
    changes only by a factor.  In a network with shortcuts or normalisations the output is not proportional to a kernel,
    so a bias is multiplied by the factor of its layer.  The paper's separate rate for the classifier is not
    implemented.
    """
    del now
    params, so_far = network.params, jnp.float32(1)
    layers = list(units.by_unit(params))
    plain = all("/" not in layer for layer in layers) and not network.stats
    for layer in sorted(layers, key=list(module_names(params)).index) if plain else layers:
        norm = parameters.norm(units.at(params, layer)["kernel"])
        first = network.memory["soft_weight_rescaling"][f"{layer}/kernel"]
        factor = (rate * first + (1 - rate) * norm) / jnp.maximum(norm, TINY)
        so_far = so_far * factor
        of_bias = so_far if plain else factor
        params = _replaced(params, layer, functools.partial(_scaled, factor, of_bias))
    return network._replace(params=params)


def _scaled(of_kernel: Array, of_bias: Array, leaf: Array) -> Array:
    return leaf * (of_kernel if leaf.ndim > 1 else of_bias)


def first_norms(network: Network, begun: Begun) -> dict[str, Array]:
    """The memory: the Frobenius norm of each initial kernel."""
    del network
    return {
        f"{layer}/kernel": parameters.norm(units.at(begun.first, layer)["kernel"])
        for layer in units.by_unit(begun.first)
    }


def normalise_and_project(network: Network, now: Now, *, decay: Share) -> Network:
    """NaP: projects kernels to their initial Frobenius norm; scales and offsets decay to their initial values.

    Lyle et al. 2024 (2407.01800), section 4.  `decay`, per update, applies to all parameters except kernels, including
    biases.  The other half of NaP, a normalisation before every nonlinearity, is `model.norm=layer`; its re-warmed
    learning rates are `optim.warmup` and a schedule, which restart with each stage.
    """
    del now

    def project(leaf: Array, first: Array) -> Array:
        if leaf.ndim > 1:
            return leaf * (parameters.norm(first) / jnp.maximum(parameters.norm(leaf), TINY))
        return leaf + decay * (first - leaf)

    return network._replace(params=jax.tree.map(project, network.params, network.memory["normalise_and_project"]))


def _first_weights(network: Network, begun: Begun) -> Tree:
    del network
    return begun.first


def _replaced(params: Tree, layer: str, change: Callable[[Array], Array]) -> Tree:
    """The parameters with `change` applied to kernel and bias of a layer."""
    first, _, rest = layer.partition("/")
    inside = _replaced(params[first], rest, change) if rest else jax.tree.map(change, params[first])
    return {**params, first: inside}


UPDATES: dict[str, Callable[..., Network] | Remedy] = {
    "weight_clipping": weight_clipping,
    "soft_weight_rescaling": Remedy(soft_weight_rescaling, first_norms),
    "normalise_and_project": Remedy(normalise_and_project, _first_weights),
}
