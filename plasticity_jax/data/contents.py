"""Statistics and hash of the arrays of a data set."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CHUNK = 5000  # images processed at once, which bounds the memory
# CIFAR-10 as Hare & Tortoise, DASH and the public reproduction of the warm-start experiment normalise it.  The
# deviations are not those of all pixels (0.247, 0.243, 0.262), but staying with them keeps results comparable.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


Facts = tuple[tuple[float, ...], tuple[float, ...], str]  # mean, deviation, sha256


def facts(name: str, arrays: Mapping[str, Any]) -> Facts:
    """Mean, standard deviation and hash, from one pass over the four arrays in parts.

    That is the mean and the standard deviation per channel of the training images / 255, for CIFAR-10 those that are
    usual; and the `digest`.
    """
    channels = arrays["train_images"].shape[-1]
    counts = np.zeros((channels, 256), np.int64)  # exact, and without a float copy of all images
    usual = name.startswith("cifar10") and not name.startswith("cifar100") and channels == 3

    def count(images: np.ndarray) -> None:
        for channel, row in enumerate(counts):
            row += np.bincount(images[..., channel].ravel(), minlength=256)

    sha256 = digest(arrays, None if usual else count)
    if usual:
        return CIFAR10_MEAN, CIFAR10_STD, sha256
    weights, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt(np.sum(weights * (values - mean[:, None]) ** 2, axis=1))
    return tuple(map(float, mean)), tuple(float(s) if s > 1e-12 else 1.0 for s in std), sha256


def digest(arrays: Mapping[str, Any], look: Callable[[np.ndarray], None] | None = None) -> str:
    """SHA-256 (hex) of shapes and contents of the four arrays; calls `look` with parts of the training images."""
    sha256 = hashlib.sha256()
    for key in ARRAYS:
        array = arrays[key]
        sha256.update(f"{key} {array.dtype} {array.shape}".encode())
        for start in range(0, len(array), CHUNK):
            part = np.ascontiguousarray(array[start : start + CHUNK])
            sha256.update(part.data)
            if look and key == "train_images":
                look(part)
    return sha256.hexdigest()
