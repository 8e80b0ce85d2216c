"""Inputs of one run other than its state: its task in a stage, the images, and the probes of diagnostics."""

from typing import Any, NamedTuple

import flax.struct
from jax import Array

from plasticity_jax.data import batches, crops
from plasticity_jax.data.batches import Leaf, Source
from plasticity_jax.training.hyper import Hyper


class Task(NamedTuple):
    """The traced inputs of one run in a stage: a row of the run axis.

    key: from the seed and the stage's name.  source: its pool of images.  hyper: its optimiser's numbers.
    steps: int32, the length of the stage.  epoch_steps: int32, steps in one epoch of its pool.
    until_accuracy: float32, the running train accuracy, in [0, 1], that ends the stage; 0 for never.
    ema: float32, the decay of the moving average.  watch: the numbers of the detector; () without one.
    starts: int32 [K - 1], the steps at which step decay begins the second and later learning stages.
    remedies: the numbers of the stage's remedies, one dictionary each.
    reset: the `Factors` of the stage's reset, if a stream of tasks repeats it; else ().
    smoothing: float32, the part of each label that is spread over the classes; () for none.
    noise: float32, standard deviation of the noise on activations at the start of the stage; () for none.
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
    """The images of a data set, uint8 [N, H, W, C], or some of them, with float32 [C] mean and standard deviation.

    where: if only some images are present, int32 [N]: the place in `images` of each image of the data set; else ().
    side: height and width of the network's input; 0 for the whole image.
    """

    images: Leaf
    mean: Leaf
    std: Leaf
    where: Any = ()
    side: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def whole(self) -> bool:
        """Whether all images of the data set are present."""
        return isinstance(self.where, tuple)

    def laid_out(self, part: Any, whole: Any) -> Any:
        """`whole` if all images are present, else a tree like this with `part` where devices hold different data."""
        return whole if self.whole else self.replace(images=part, where=part, mean=whole, std=whole)

    def at(self, indices: Array) -> Array:
        """The images at these indices of the data set, uint8 [B, H, W, C]."""
        return self.images[indices if self.whole else self.where[indices]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""
        height, width, channels = self.images.shape[1:]
        return self.side or height, self.side or width, channels

    def seen(self, indices: Array) -> Array:
        """The centre of each image, [B, height, width, C], with values up to 255."""
        return crops.middle(self.at(indices), *self.shape[:2])

    def take(self, indices: Array) -> Array:
        """The centre of each image, float32, normalised."""
        return batches.normalise(self.seen(indices), self.mean, self.std)

    def augmented(self, k: Array, indices: Array, how: str) -> Array:
        """Augmented images by the method `how` of `spec.AUGMENT`, drawn with key `k`; values up to 255."""
        flip = how.endswith("_flip")
        if how.startswith("resized_crop"):
            return crops.resized_crop(k, self.at(indices), *self.shape[:2], flip)
        return batches.augment(k, self.seen(indices), flip=flip)


class Probe(NamedTuple):
    """Images for the diagnostics of one run: int32 [B] each, and its `classes` and `tasks` as in `Source`."""

    index: Leaf
    label: Leaf
    classes: Any = ()
    tasks: Any = ()
