"""What one run is given besides its state: its task in a stage, the images, and what diagnostics look at."""

from typing import Any, NamedTuple

from jax import Array

from plasticity_jax.data import batches
from plasticity_jax.data.batches import Leaf, Source
from plasticity_jax.training.hyper import Hyper


class Task(NamedTuple):
    """What one run does in a stage, as data: a row of the run axis.

    key: the seed's key of the stage (by its name); source: its pool; hyper: its optimiser's numbers.
    steps: int32, the length of the stage; epoch_steps: int32, steps in one epoch of its pool.
    until_accuracy: float32, the running train accuracy (share) that ends the stage; 0 for never.
    ema: float32, the decay of the moving average.  watch: the numbers of the detector; () without one.
    starts: int32 [K - 1], the steps at which step decay begins the second and later learning stages.
    remedies: the numbers of the stage's remedies, a dictionary for each.
    reset: the `Factors` of the stage's reset, where a stream of tasks repeats it; else ().
    """

    key: Leaf
    source: Source
    hyper: Hyper
    steps: Leaf
    epoch_steps: Leaf
    until_accuracy: Leaf
    ema: Leaf
    watch: Any
    starts: Leaf
    remedies: Any = ()
    reset: Any = ()


class Images(NamedTuple):
    """The images of a data set, uint8 [N, H, W, C], and its float32 [C] mean and deviation."""

    images: Leaf
    mean: Leaf
    std: Leaf

    def take(self, indices: Array) -> Array:
        """float32 [B, H, W, C], normalised."""
        return batches.normalise(self.images[indices], self.mean, self.std)


class Probe(NamedTuple):
    """Images that the diagnostics of one run look at: int32 [B] each, and its `classes` and `tasks` as in `Source`."""

    index: Leaf
    label: Leaf
    classes: Any = ()
    tasks: Any = ()
