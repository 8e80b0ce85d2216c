"""Random crops of images, resized on the device: a pure function of (key, images).

The draw is that of torchvision's RandomResizedCrop (Szegedy et al. 2015, section 6), and so is the resizing: bilinear,
with a kernel as wide as the step where an image becomes smaller (pillow, torchvision's `antialias`).  It is written as
two matrix products, which for ResNet-50 at 224 are a hundredth of a step's arithmetic.
"""

import jax
import jax.numpy as jnp
from jax import Array

AREA = (0.08, 1.0)  # fraction of the image's area
RATIO = (3 / 4, 4 / 3)  # width over height
TRIES = 10  # draws; the first one inside the image is used, or the whole image if there is none


def resized_crop(k: Array, images: Array, height: int, width: int, flip: bool) -> Array:
    """A random crop of each image, resized, float32 [B, height, width, C]; `flip` mirrors it with probability 1/2.

    The crop does not depend on `flip`.

    Args:
      k: the key.
      images: [B, H, W, C].
    """
    k_part, k_flip = jax.random.split(k)
    top, left, rows, columns = parts(k_part, *images.shape[:3])
    down = _weights(top, rows, height, images.shape[1])
    across = _weights(left, columns, width, images.shape[2])
    if flip:
        mirrored = jax.random.bernoulli(k_flip, 0.5, (len(images), 1, 1))
        across = jnp.where(mirrored, across[:, ::-1], across)
    resized = jnp.einsum("byh,bhwc->bywc", down, images.astype(jnp.float32))
    return jnp.einsum("bxw,bywc->byxc", across, resized)


def parts(k: Array, count: int, height: int, width: int) -> tuple[Array, Array, Array, Array]:
    """The crops of `count` images: top, left, rows and columns, int32 [count] each."""
    k_area, k_ratio, k_top, k_left = jax.random.split(k, 4)
    area = height * width * jax.random.uniform(k_area, (TRIES, count), minval=AREA[0], maxval=AREA[1])
    logs = jnp.log(jnp.float32(RATIO[0])), jnp.log(jnp.float32(RATIO[1]))
    ratio = jnp.exp(jax.random.uniform(k_ratio, (TRIES, count), minval=logs[0], maxval=logs[1]))
    sides = jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)])
    drawn = jnp.maximum(jnp.round(sides), 1).astype(jnp.int32)  # [2, TRIES, count]
    inside = (drawn[0] <= height) & (drawn[1] <= width)
    first = jnp.take_along_axis(drawn, jnp.argmax(inside, 0)[None, None], 1)[:, 0]
    rows, columns = jnp.where(inside.any(0), first, jnp.int32([[height], [width]]))
    top = jax.random.randint(k_top, (count,), 0, height - rows + 1)
    left = jax.random.randint(k_left, (count,), 0, width - columns + 1)
    return top, left, rows, columns


def _weights(start: Array, length: Array, size: int, whole: int) -> Array:
    """The weights of resizing, [B, size, whole]: of each of `whole` pixels in each of `size` resized ones."""
    start, length = start[:, None, None].astype(jnp.float32), length[:, None, None].astype(jnp.float32)
    step = length / size
    centre = start + (jnp.arange(size)[:, None] + 0.5) * step
    place = jnp.arange(whole) + 0.5
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(place - centre) / jnp.maximum(step, 1.0))
    weights = jnp.where((place > start) & (place < start + length), weights, 0.0)
    return weights / weights.sum(-1, keepdims=True)


def middle(images: Array, height: int, width: int) -> Array:
    """The centre of each image, [B, height, width, C]; an odd pixel is cut off at the bottom or right."""
    if images.shape[1:3] == (height, width):
        return images
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]
