"""Remedies that add a term to the loss: functions of (observed, numbers), by name in `REGULARISERS`.

Each term follows its paper, times its `strength`; where released code differs, the docstring says which is followed.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from plasticity_jax.config.rules import real
from plasticity_jax.models import parameters, units
from plasticity_jax.training.remedies.interface import Begun, Network, Now, Remedy, Seen

Tree = Any
Strength = Annotated[Array, real("[0, inf)")]
HEADS = 10  # of InFeR
TINY = 1e-12


def l2_init(observed: Seen, *, strength: Strength) -> Array:
    """|theta - theta_0|^2 over all parameters: Kumar et al. 2023 (arXiv 2308.11958), section 4.

    As in the paper there is no factor 1/2, so the gradient is 2 strength (theta - theta_0).  Parameters of
    normalisations are included.  The released code of Hare & Tortoise overwrites the sum in a loop, so it regularises
    only the last parameter; this is not followed.
    """
    return strength * _squares(jax.tree.map(jnp.subtract, observed.params, observed.memory))


def first_weights(network: Network, begun: Begun) -> Tree:
    """The memory: the initial weights.  Where a remedy replaces a unit, its new weights take their place."""
    del network
    return begun.first


def spectral(observed: Seen, *, strength: Strength) -> Array:
    """Pulls the largest singular value of each layer to 1, and biases to 0: Lewandowski et al. 2025 (2406.06811).

    The sum over layers of (sigma^2 - 1)^2 + (|b|^2)^2, the paper's term with k = 2.  A kernel is a matrix [inputs,
    outputs], for a convolution [height x width x inputs, outputs].  sigma is estimated with one step of power iteration
    per update.  Normalisations are not regularised.
    """
    total = jnp.float32(0)
    for layer, u in observed.memory.items():
        inside = units.at(observed.params, layer)
        matrix = _matrix(inside["kernel"])
        v = _unit(jax.lax.stop_gradient(matrix) @ u)
        total += jnp.square(jnp.square(v @ matrix @ u) - 1)
        if "bias" in inside:
            total += jnp.square(jnp.sum(jnp.square(inside["bias"])))
    return strength * total


def first_directions(network: Network, begun: Begun) -> dict[str, Array]:
    """The initial memory: a unit vector per layer, which power iteration turns into the first right singular vector."""
    del begun
    return {layer: _unit(zeros + 1) for layer, zeros in units.by_unit(network.params).items()}


def turn(memory: dict[str, Array], network: Network, now: Now, numbers: Mapping[str, Array]) -> dict[str, Array]:
    """One step of power iteration."""
    del now, numbers

    def turned(layer: str, u: Array) -> Array:
        matrix = _matrix(units.at(network.params, layer)["kernel"])
        return _unit(_unit(matrix @ u) @ matrix)

    return {layer: turned(layer, u) for layer, u in memory.items()}


def parseval(observed: Seen, *, strength: Strength, scale: Annotated[Array, real("(0, inf)")]) -> Array:
    """Pulls the incoming weight vectors of a layer's units towards orthogonality: Chung et al. 2024 (2412.07224).

    The sum over layers except the head of |W W^T - scale I|^2 (Frobenius), with one row of W per output.  A layer with
    more outputs than inputs uses W^T W, since its W W^T cannot be a multiple of the identity.
    """
    total = jnp.float32(0)
    for layer in units.by_unit(observed.params):
        if layer != "head":
            matrix = _matrix(units.at(observed.params, layer)["kernel"])
            gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
            total += jnp.sum(jnp.square(gram - scale * jnp.eye(len(gram))))
    return strength * total


def feature_norm(observed: Seen, *, strength: Strength) -> Array:
    """The squared norm of the features: Lyle et al. 2022 and 2024 (2402.18762, section 4.1).

    The papers do not specify which features; here it is the output of every ReLU, squared, summed over units and
    positions, and averaged over examples.  `penultimate`, the pooled output of the last ReLU, is left out.
    """
    shown = [value.astype(jnp.float32) for name, value in observed.features.items() if name != "penultimate"]
    return strength * _squares(shown) / len(observed.images)


def infer(observed: Seen, *, strength: Strength, scale: Annotated[Array, real("(0, inf)")]) -> Array:
    """InFeR: heads on the features regress the outputs of the initial network's heads: Lyle et al. 2022 (2204.09560).

    There are `HEADS` scalar heads on the penultimate features.  Those of the initial network are frozen; their outputs
    times `scale` are the targets of the live ones.  Both networks use batch statistics.  Squared errors are summed over
    heads, as in the paper (a port takes the mean), and averaged over the batch.  The live heads are trained by plain
    gradient descent with the stage's learning rate.
    """
    memory = observed.memory
    live = observed.features["penultimate"] @ memory["live"]
    return strength * jnp.mean(jnp.sum(jnp.square(live - _targets(memory, observed, observed.images, scale)), -1))


def _targets(memory: Mapping[str, Tree], at: Seen | Now, images: Array, scale: Array) -> Array:
    first = _thawed(memory["first"], at.before if isinstance(at, Now) else at.params)
    _, features = at.forward(first, memory["stats"], images, True)
    return jax.lax.stop_gradient(scale * (features["penultimate"] @ memory["frozen"]))


def first_heads(network: Network, begun: Begun) -> dict[str, Tree]:
    """The initial memory: the initial network, with heads drawn uniformly in +-1/sqrt(features)."""
    width = network.params["head"]["kernel"].shape[0]
    heads = jax.random.uniform(begun.key, (width, HEADS), jnp.float32, -(width**-0.5), width**-0.5)
    return {"first": _frozen(begun.first), "stats": network.stats, "frozen": heads, "live": heads}


def learn_heads(memory: dict[str, Tree], network: Network, now: Now, numbers: Mapping[str, Array]) -> dict[str, Tree]:
    """The memory after one gradient step of the live heads on the batch of this step."""
    _, features = now.forward(now.before, network.stats, now.images, True)
    targets = _targets(memory, now, now.images, numbers["scale"])

    def loss(live: Array) -> Array:
        return numbers["strength"] * jnp.mean(jnp.sum(jnp.square(features["penultimate"] @ live - targets), -1))

    return memory | {"live": memory["live"] - now.rate * jax.grad(loss)(memory["live"])}


def churn(observed: Seen, *, strength: Strength) -> Array:
    """C-CHAIN: penalises changes of predictions on other inputs by the last update: Tang et al. 2025 (2506.00592).

    Cross-entropy between the network before the last update and the current network, on reference images drawn from the
    run's data independently of the batch (the paper: 0.1 times this).  Scaling by running losses is not implemented.
    """
    before, _ = observed.forward(observed.memory, observed.stats, observed.reference, True)
    now, _ = observed.forward(observed.params, observed.stats, observed.reference, True)
    return strength * _cross_entropy(now, before)


def weights_before(memory: Tree, network: Network, now: Now, numbers: Mapping[str, Array]) -> Tree:
    """The memory after a step: the weights before this update, for use in the next step."""
    del memory, network, numbers
    return now.before


def distillation(observed: Seen, *, strength: Strength, share: Annotated[Array, real("(0, 1]")]) -> Array:
    """ITER: distils the network of the stage before into a fresh one: Igl et al. 2021 (2006.05826), for classification.

    Cross-entropy with the teacher's predictions on the batch, in eval mode, with a weight that falls linearly to zero
    over the fraction `share` of the stage; it is added to the loss of the labels, as in the paper to the policy loss.
    The student is a fresh network if the stage's `reset` names all modules.
    """
    frozen, stats = observed.memory
    teacher, _ = observed.forward(_thawed(frozen, observed.params), stats, observed.images, False)
    return strength * jnp.maximum(0.0, 1 - observed.time / share) * _cross_entropy(observed.logits, teacher)


def network_before(network: Network, begun: Begun) -> tuple[list[Array], Tree]:
    """The memory: the network at the end of the stage before."""
    del network
    params, stats = begun.before
    return _frozen(params), stats


def _frozen(params: Tree) -> list[Array]:
    """Parameters as a list: without paths, so the replacement of units does not change them."""
    return jax.tree.leaves(params)


def _thawed(leaves: list[Array], like: Tree) -> Tree:
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _cross_entropy(logits: Array, teacher: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(teacher))))


def _squares(tree: Tree) -> Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


def _matrix(kernel: Array) -> Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(parameters.norm(vector), TINY)


def _current(network: Network, begun: Begun) -> Tree:
    del begun
    return network.params


REGULARISERS: dict[str, Callable[..., Array] | Remedy] = {
    "l2_init": Remedy(l2_init, first_weights),
    "spectral": Remedy(spectral, first_directions, turn),
    "parseval": parseval,
    "feature_norm": feature_norm,
    "infer": Remedy(infer, first_heads, learn_heads),
    "churn": Remedy(churn, _current, weights_before),
    "distillation": Remedy(distillation, network_before),
}
