"""What one run is given besides its state: its task in a stage, the images, and what diagnostics look at."""

from typing import Any, NamedTuple

import flax.struct
from jax import Array

from plasticity_jax.data import batches, crops
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
    smoothing: float32, the share of each label that is spread over the classes; () for none.
    noise: float32, the deviation of the noise on activations at the start of the stage; () for none.
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
    smoothing: Any = ()
    noise: Any = ()


class Images(flax.struct.PyTreeNode):
    """The images of a data set, uint8 [N, H, W, C], or some of them; and its float32 [C] mean and deviation.

    where: int32 [N], where in `images` each one of the data set lies that is there; () where all are, in their order.
    side: height and width of what networks see of them; 0 for all.
    """

    images: Leaf
    mean: Leaf
    std: Leaf
    where: Any = ()
    side: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def whole(self) -> bool:
        """Whether these are all images of the data set."""
        return isinstance(self.where, tuple)

    def laid_out(self, part: Any, whole: Any) -> Any:
        """`whole`, or where not all images are there a tree like this: a `part` of what differs between devices."""
        return whole if self.whole else self.replace(images=part, where=part, mean=whole, std=whole)

    def at(self, indices: Array) -> Array:
        """uint8 [B, H, W, C]: the images at these indices of the data set."""
        return self.images[indices if self.whole else self.where[indices]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels that networks see."""
        height, width, channels = self.images.shape[1:]
        return self.side or height, self.side or width, channels

    def seen(self, indices: Array) -> Array:
        """[B, height, width, C] with values up to 255: the middle of each image."""
        return crops.middle(self.at(indices), *self.shape[:2])

    def take(self, indices: Array) -> Array:
        """The same as float32, normalised."""
        return batches.normalise(self.seen(indices), self.mean, self.std)

    def augmented(self, k: Array, indices: Array, how: str) -> Array:
        """The same by a way of `spec.AUGMENT`, which draws by a key."""
        flip = how.endswith("_flip")
        if how.startswith("resized_crop"):
            return crops.resized_crop(k, self.at(indices), *self.shape[:2], flip)
        return batches.augment(k, self.seen(indices), flip=flip)


class Probe(NamedTuple):
    """Images that the diagnostics of one run look at: int32 [B] each, and its `classes` and `tasks` as in `Source`."""

    index: Leaf
    label: Leaf
    classes: Any = ()
    tasks: Any = ()
