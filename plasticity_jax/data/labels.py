"""Checks the labels of a data set: classes 0..K-1, each with training images."""

from collections.abc import Sequence

import numpy as np

from plasticity_jax.errors import DataError

SHOWN = 5  # largest number of classes in a message


def numbered(
    where: str, train: np.ndarray, test: np.ndarray, classes: int | None
) -> tuple[np.ndarray, np.ndarray, int, tuple[str, ...]]:
    """Labels int32 of the training and the test images, the number of classes, and notes.

    Args:
      where: prefix of every error.
      train, test: labels from 0 on; further test sets count as test images.
      classes: their declared number; classes without images are removed, and later ones are renumbered.  None for
        custom labels, which must have no gaps.

    Raises:
      DataError: a class has test images but no training images, or custom labels have a gap.
    """
    declared = np.arange(1 + int(max(train.max(), test.max())) if classes is None else classes)
    trained = np.unique(train)
    strange, absent = np.setdiff1d(test, trained), np.setdiff1d(declared, trained)
    if classes is None and len(absent) and not np.isin(absent, strange).all():
        raise DataError(
            f"{where}: labels span {trained[0]}..{trained[-1]}, but no training image has {_shown(absent)}; "
            f"give the {len(trained)} classes the labels 0..{len(trained) - 1}"
        )
    if len(strange):
        raise DataError(
            f"{where}: test images have {_shown(strange)}, but no training image has; remove these test images, or add "
            "training images of these classes"
        )
    if not len(absent):
        return train.astype(np.int32), test.astype(np.int32), len(trained), ()
    note = f"{_shown(absent)} of {len(declared)} classes without any image left out; those after them move up"
    ranks = [np.searchsorted(trained, labels).astype(np.int32) for labels in (train, test)]
    return ranks[0], ranks[1], len(trained), (note,)


def _shown(classes: Sequence[int] | np.ndarray) -> str:
    named = ", ".join(map(str, classes[:SHOWN])) + (", .." if len(classes) > SHOWN else "")
    return f"label{'s' * (len(classes) > 1)} {named}"
