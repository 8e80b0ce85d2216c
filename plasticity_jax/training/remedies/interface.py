"""The arguments and results of remedies.

A remedy is a plain function of ONE run.  Its numbers are keyword arguments, annotated with their range, and traced.

    regulariser  (observed: Seen, *, numbers) -> a float32 scalar that is added to the mean loss of the batch
    update       (network: Network, now: Now, *, numbers) -> Network, after every step
    periodic     (network: Network, now: Now, *, numbers) -> Network, after every `every` steps
    start        (network: Network, begun: Begun, *, numbers) -> Network, at the start of a stage

A remedy with a memory is a `Remedy`: such a function, one that returns the initial memory and, if the memory changes,
one that updates it after each step.  The memory is part of the train state.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from plasticity_jax.models.units import Site

Tree = Any
Forward = Callable[[Tree, Tree, Array, bool], tuple[Array, Mapping[str, Array]]]


class Network(NamedTuple):
    """Everything that a remedy may change: parameters, running statistics, optimiser state, and memories by name."""

    params: Tree
    stats: Tree
    opt: Tree
    memory: dict[str, Tree]


class Seen(NamedTuple):
    """The argument of a regulariser: a batch (or micro-batch), and the network before the step.

    logits, features: outputs of the network for the images, in train mode.
    reference: images [B, ..] drawn from the run's data at each step, not augmented.
    time: the fraction of the stage that is over.
    memory: of this remedy.
    forward: (params, stats, images, train) -> (logits, features) of the same network.
    """

    params: Tree
    stats: Tree
    images: Array
    labels: Array
    logits: Array
    features: Mapping[str, Array]
    reference: Array
    time: Array
    memory: Tree
    forward: Forward


class Now(NamedTuple):
    """The argument of remedies after a step.

    step: int32, steps taken in this stage, this one included.  key: random, of this step and remedy.
    rate: the learning rate.  before: the parameters before the step.  grads: its gradient.  images: its batch.
    examples: the number of examples in the batch.  activity: sums over them, see `units.activity`.
    sites: the network's units.  fresh: key -> initial (params, stats).  forward: as in `Seen`.
    """

    step: Array
    key: Array
    rate: Any
    before: Tree
    grads: Tree
    images: Array
    examples: Array
    activity: Mapping[str, Mapping[str, Array]]
    sites: tuple[Site, ...]
    fresh: Callable[[Array], tuple[Tree, Tree]]
    forward: Forward


class Begun(NamedTuple):
    """The argument of remedies at the start of a stage, after its reset.

    first: the initial weights of the run's seed, or where the reset drew new weights, these.
    before: (params, stats) at the end of the stage before, or the initial ones.
    key: random, of the run and this stage.
    sweep: (params, stats, fold, carry) -> carry after `carry = fold(carry, gradient)` over the gradients of the mean
        loss of every batch of the run's data, in train mode.
    """

    first: Tree
    before: tuple[Tree, Tree]
    key: Array
    sweep: Callable[[Tree, Tree, Callable[[Tree, Tree], Tree], Tree], Tree]


class Remedy(NamedTuple):
    """A remedy with a memory.

    act: the function, as above.
    start: (network, begun) -> memory, at the start of a stage.
    watch: (memory, network, now, numbers) -> memory, after each step and before `act`; None if it does not change.
    """

    act: Callable[..., Any]
    start: Callable[[Network, Begun], Tree]
    watch: Callable[[Tree, Network, Now, Mapping[str, Any]], Tree] | None = None


def when(due: Array, act: Callable[[Tree], Tree], tree: Tree) -> Tree:
    """`act(tree)` if `due`, else `tree`.

    A loop of at most one iteration: under `vmap` it runs only if `due` is true for some run, whereas `lax.cond` would
    always compute `act`.
    """
    return jax.lax.while_loop(lambda pair: pair[0], lambda pair: (jax.numpy.bool_(False), act(pair[1])), (due, tree))[1]
