"""Remedies that add a term to the loss: functions of (what is seen, numbers); another one is another in `REGULARISERS`.

Each term is written as its paper has it; where released code differs, the docstring says which is followed.  Each is
multiplied by its `strength`.
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


def l2_init(seen: Seen, *, strength: Strength) -> Array:
    """|theta - theta_0|^2 over all parameters: Kumar et al. 2023 (arXiv 2308.11958), section 4.

    There is no factor 1/2, as in the paper, so the gradient is 2 strength (theta - theta_0).  All parameters have their
    own theta_0, the normalisations' too.  The released code of Hare & Tortoise overwrites the sum in a loop, so that
    the last parameter alone is held; that is not followed.
    """
    return strength * _squares(jax.tree.map(jnp.subtract, seen.params, seen.memory))


def first_weights(network: Network, begun: Begun) -> Tree:
    """The first weights; of a unit that is replaced they become its new ones."""
    del network
    return begun.first


def spectral(seen: Seen, *, strength: Strength) -> Array:
    """The largest singular value of each layer is drawn to 1, and biases to 0: Lewandowski et al. 2025 (2406.06811).

    The sum over layers of (sigma^2 - 1)^2 + (|b|^2)^2, which is the paper's with its k = 2.  A kernel is a matrix of
    [inputs, outputs], of a convolution [height x width x inputs, outputs].  sigma is estimated by one step of power
    iteration for each update.  Normalisations are left out.
    """
    total = jnp.float32(0)
    for layer, u in seen.memory.items():
        inside = units.at(seen.params, layer)
        matrix = _matrix(inside["kernel"])
        v = _unit(jax.lax.stop_gradient(matrix) @ u)
        total += jnp.square(jnp.square(v @ matrix @ u) - 1)
        if "bias" in inside:
            total += jnp.square(jnp.sum(jnp.square(inside["bias"])))
    return strength * total


def first_directions(network: Network, begun: Begun) -> dict[str, Array]:
    """A unit vector for each layer, which power iteration turns to the first right singular vector."""
    del begun
    return {layer: _unit(zeros + 1) for layer, zeros in units.by_unit(network.params).items()}


def turn(memory: dict[str, Array], network: Network, now: Now, numbers: Mapping[str, Array]) -> dict[str, Array]:
    """One step of power iteration."""
    del now, numbers

    def turned(layer: str, u: Array) -> Array:
        matrix = _matrix(units.at(network.params, layer)["kernel"])
        return _unit(_unit(matrix @ u) @ matrix)

    return {layer: turned(layer, u) for layer, u in memory.items()}


def parseval(seen: Seen, *, strength: Strength, scale: Annotated[Array, real("(0, inf)")]) -> Array:
    """The vectors of weights that enter a layer's units are drawn to be orthogonal: Chung et al. 2024 (2412.07224).

    The sum over layers but the head of |W W^T - scale I|^2 (Frobenius), with a row of W for each output.  Where a layer
    has more outputs than inputs, it is W^T W, since W W^T could not be a multiple of the identity.
    """
    total = jnp.float32(0)
    for layer in units.by_unit(seen.params):
        if layer != "head":
            matrix = _matrix(units.at(seen.params, layer)["kernel"])
            gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
            total += jnp.sum(jnp.square(gram - scale * jnp.eye(len(gram))))
    return strength * total


def feature_norm(seen: Seen, *, strength: Strength) -> Array:
    """The squared norm of the features: Lyle et al. 2022 and 2024 (2402.18762, section 4.1).

    The papers do not fix which features; here they are the output of every ReLU: the sum of their squares over units
    and positions, and the mean over the examples.  `penultimate`, the last of them pooled, is left out.
    """
    shown = [value.astype(jnp.float32) for name, value in seen.features.items() if name != "penultimate"]
    return strength * _squares(shown) / len(seen.images)


def infer(seen: Seen, *, strength: Strength, scale: Annotated[Array, real("(0, inf)")]) -> Array:
    """InFeR: heads on the features keep predicting what they said of the first features: Lyle et al. 2022 (2204.09560).

    `HEADS` scalar heads on the penultimate features; those of the first network are frozen, and their outputs times
    `scale` are what the live ones predict.  Both networks normalise by the batch.  Squared errors are summed over
    heads, as in the paper (a port takes the mean), and averaged over the batch.  The live heads learn by plain gradient
    descent at the stage's rate.
    """
    memory = seen.memory
    live = seen.features["penultimate"] @ memory["live"]
    return strength * jnp.mean(jnp.sum(jnp.square(live - _targets(memory, seen, seen.images, scale)), -1))


def _targets(memory: Mapping[str, Tree], known: Seen | Now, images: Array, scale: Array) -> Array:
    first = _thawed(memory["first"], known.before if isinstance(known, Now) else known.params)
    _, features = known.forward(first, memory["stats"], images, True)
    return jax.lax.stop_gradient(scale * (features["penultimate"] @ memory["frozen"]))


def first_heads(network: Network, begun: Begun) -> dict[str, Tree]:
    """The first network, with heads drawn uniformly within 1/sqrt(features)."""
    width = network.params["head"]["kernel"].shape[0]
    heads = jax.random.uniform(begun.key, (width, HEADS), jnp.float32, -(width**-0.5), width**-0.5)
    return {"first": _frozen(begun.first), "stats": network.stats, "frozen": heads, "live": heads}


def learn_heads(memory: dict[str, Tree], network: Network, now: Now, numbers: Mapping[str, Array]) -> dict[str, Tree]:
    """One step of the live heads, on the batch of this step."""
    _, features = now.forward(now.before, network.stats, now.images, True)
    targets = _targets(memory, now, now.images, numbers["scale"])

    def loss(live: Array) -> Array:
        return numbers["strength"] * jnp.mean(jnp.sum(jnp.square(features["penultimate"] @ live - targets), -1))

    return memory | {"live": memory["live"] - now.rate * jax.grad(loss)(memory["live"])}


def churn(seen: Seen, *, strength: Strength) -> Array:
    """C-CHAIN: predictions on other inputs stay what they were one update ago: Tang et al. 2025 (2506.00592).

    Cross-entropy between the network before the last update and the network now, on reference images drawn from the
    run's data apart from the batch (the paper: 0.1 times this).  The option of scaling by running losses is left out.
    """
    before, _ = seen.forward(seen.memory, seen.stats, seen.reference, True)
    now, _ = seen.forward(seen.params, seen.stats, seen.reference, True)
    return strength * _cross_entropy(now, before)


def weights_before(memory: Tree, network: Network, now: Now, numbers: Mapping[str, Array]) -> Tree:
    """The weights before this update, which is the last one when the next step sees them."""
    del memory, network, numbers
    return now.before


def distillation(seen: Seen, *, strength: Strength, share: Annotated[Array, real("(0, 1]")]) -> Array:
    """ITER: the network of the stage before teaches a fresh one: Igl et al. 2021 (2006.05826), for classification.

    Cross-entropy towards the teacher's predictions on the batch, in eval mode, with a weight that falls linearly to
    zero over a `share` of the stage; the loss of the labels stays, as the paper's policy loss does.  The student is a
    fresh network if the stage's `reset` names all modules.
    """
    frozen, stats = seen.memory
    teacher, _ = seen.forward(_thawed(frozen, seen.params), stats, seen.images, False)
    return strength * jnp.maximum(0.0, 1 - seen.time / share) * _cross_entropy(seen.logits, teacher)


def network_before(network: Network, begun: Begun) -> tuple[list[Array], Tree]:
    """What the stage before ended with."""
    del network
    params, stats = begun.before
    return _frozen(params), stats


def _frozen(params: Tree) -> list[Array]:
    """Parameters as a list, which units that are replaced do not change: nothing of it belongs to them."""
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
