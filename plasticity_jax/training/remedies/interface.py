"""What a remedy is given and what it returns.

A remedy is a plain function of ONE run.  Its numbers are keyword arguments, annotated with their range, and traced.

    regulariser  (seen: Seen, *, numbers) -> loss, a float32 scalar that is added to the mean loss of the batch
    update       (network: Network, now: Now, *, numbers) -> Network, after every step
    periodic     (network: Network, now: Now, *, numbers) -> Network, after every `every` steps
    start        (network: Network, begun: Begun, *, numbers) -> Network, at the start of a stage

A remedy that has to remember something is a `Remedy`: such a function, with one that begins its memory and, where it
changes, one that goes on with it after each step.  The memory is a part of the train state.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from plasticity_jax.models.units import Site

Tree = Any
Forward = Callable[[Tree, Tree, Array, bool], tuple[Array, Mapping[str, Array]]]


class Network(NamedTuple):
    """What a remedy may change: parameters, running statistics, the optimiser's state, and all memories by name."""

    params: Tree
    stats: Tree
    opt: Tree
    memory: dict[str, Tree]


class Seen(NamedTuple):
    """What a regulariser sees of a batch (or micro-batch) and of the network before the step.

    logits, features: what the network makes of the images, in train mode.
    reference: images of the run's data that are drawn anew for each step, as many as the batch has; not augmented.
    time: the share of the stage that is over.
    memory: the remedy's own.
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
    """What is known after a step.

    step: int32, steps taken in this stage, this one included.  key: random, of this step and remedy.
    rate: the learning rate.  before: the parameters before the step.  grads: its gradient.  images: its batch.
    examples: how many the batch has.  activity: sums over them, see `units.activity`.
    sites: the network's units.  fresh: from a key to fresh (params, stats).  forward: as in `Seen`.
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
    """What is known at the start of a stage, after its reset.

    first: the first weights: those of the run's seed, or where the reset draws anew what it drew.
    before: (params, stats) of the stage before, or the first ones.
    key: random, of the run and this stage.
    sweep: (params, stats, fold, carry) -> carry after `carry = fold(carry, gradient)` for the mean loss of every batch
        of the run's data, in train mode.
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
    """`act(tree)` where it is due, else the tree.

    A loop of one turn at most, since where runs are mapped side by side it is computed only if it is due for one of
    them; `lax.cond` would compute it always.
    """
    return jax.lax.while_loop(lambda pair: pair[0], lambda pair: (jax.numpy.bool_(False), act(pair[1])), (due, tree))[1]
