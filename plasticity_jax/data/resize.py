"""Resizes images to one size when they are read, without jax."""

import numpy as np
from PIL import Image


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes the shorter side to `side` and crops the centre: uint8 [side, side, C].

    Bilinear with antialiasing when the image becomes smaller, as torchvision's Resize and CenterCrop.

    Args:
      image: uint8 [H, W, C] of 1, 3 or 4 channels.
    """
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    shorter = min(height, width)
    sizes = max(side, side * width // shorter), max(side, side * height // shorter)
    plain = image[..., 0] if image.shape[-1] == 1 else image
    resized = np.asarray(Image.fromarray(plain).resize(sizes, Image.Resampling.BILINEAR)).reshape(*sizes[::-1], -1)
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + side, left : left + side]
