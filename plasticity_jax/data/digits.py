"""Scikit-learn's digits: a small data set of real images that needs no network."""

import importlib.metadata

import numpy as np

from plasticity_jax.errors import DataError

VERSION = "1.0.0"
CLASSES = 10
TRAIN = 1297


def source() -> str:
    """The version of scikit-learn, which contains the images.

    Raises:
      DataError: it is not installed.
    """
    try:
        return importlib.metadata.version("scikit-learn")
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            "digits comes with scikit-learn, which is not installed; run: pip install scikit-learn"
        ) from None


def images() -> tuple[list[np.ndarray], int]:
    """The 1797 8x8 grey digits of UCI's optical recognition set: 1297 to train and 500 to test, always the same.

    Returns:
      ([images and labels to train, images and labels to test], the number of classes).
    """
    from sklearn.datasets import load_digits  # takes two seconds

    pictures, labels = load_digits(return_X_y=True)
    pictures = np.round(pictures.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pictures))
    train, test = order[:TRAIN], order[TRAIN:]
    return [pictures[train], labels[train], pictures[test], labels[test]], CLASSES
