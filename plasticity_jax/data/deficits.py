"""Deficits: degradations of the images that a stage trains on.

    blur   a quarter of the resolution on each side, as an eye with a cataract sees (Achille et al. 2019, "Critical
           learning periods in deep networks", arXiv 1711.08856, section 2: 32x32 images as if of 8x8)

A deficit is a function of the images only and applies to training: networks are evaluated on the original images.
"""

import jax
from jax import Array

FACTOR = 4  # by which the resolution is reduced


def blur(images: Array) -> Array:
    """Images [B, H, W, C] resized linearly to a quarter of each side, at least one pixel, and back."""
    batch, height, width, channels = images.shape
    small = (batch, max(1, height // FACTOR), max(1, width // FACTOR), channels)
    return jax.image.resize(jax.image.resize(images, small, "linear"), images.shape, "linear")


def seen(deficit: str, images: Array) -> Array:
    """Images float32 [B, H, W, C] with a deficit applied: `none` or `blur`."""
    return blur(images) if deficit == "blur" else images
