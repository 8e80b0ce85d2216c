"""Images that stay on disk: random access to array_record files through TFDS's data source.

Images are decoded by threads, not processes: reading and decoding release Python's global lock, no data are copied
between processes, and no process is left over when a study is killed.  Pixels equal those that `tfds.read` returns.
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from plasticity_jax.data import resize as resizing
from plasticity_jax.errors import DataError

AT_ONCE = 64  # images that a thread reads in one call


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A split of a prepared data set.

    where: its directory, for error messages.
    image, label: the keys of both in an example.
    side: the side that images are resized to; 0 to keep their size.
    open: returns a data source of the split.
    """

    where: str
    image: str
    label: str
    side: int
    open: Callable[..., Any]

    @functools.cached_property
    def _own(self) -> threading.local:
        return threading.local()

    def read(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Returns the images with these numbers, resized as in `tfds.read`.

        Raises:
          DataError: they cannot be read.
        """
        try:
            if not hasattr(self._own, "source"):
                self._own.source = self.open()  # each thread has its own files
            examples = self._own.source.__getitems__(numbers.tolist())
        except Exception as error:  # array_record, pillow and tfds raise different types
            raise unreadable(self.where, error) from error
        images = [example[self.image] for example in examples]
        return [resizing.fit(image, self.side) for image in images] if self.side else images

    def labels(self, count: int) -> np.ndarray:
        """Returns all labels, int32 [count], without decoding images."""
        import tensorflow_datasets as tfds

        source, numbered = self.open(decoders={self.image: tfds.decode.SkipDecoding()}), np.zeros(count, np.int32)
        for start in range(0, count, 1000):
            numbers = range(start, min(count, start + 1000))
            try:
                numbered[start : start + 1000] = [example[self.label] for example in source.__getitems__(list(numbers))]
            except Exception as error:  # as above
                raise unreadable(self.where, error) from error
        return numbered


class Records:
    """Images [N, H, W, C] on disk, used like a uint8 array indexed along its first axis; each access reads them.

    parts: splits, with the numbers of the images used; several for joined data sets.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, parts: Sequence[tuple[Split, np.ndarray]], shape: tuple[int, ...] = ()):
        self.parts = list(parts)
        self.ends = np.cumsum([len(numbers) for _, numbers in self.parts])
        self.shape = (int(self.ends[-1]), *(shape or self.parts[0][0].read(self.parts[0][1][:1])[0].shape))
        self.threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1))  # they end with this object

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        """The images at a slice or at indices, uint8 [n, H, W, C].

        Raises:
          DataError: they cannot be read, or differ in size.
        """
        indices = np.arange(len(self))[chosen]
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        jobs = [slice(start, start + AT_ONCE) for start in range(0, len(indices), AT_ONCE)]
        for _ in self.threads.map(lambda job: self._fill(images[job], indices[job]), jobs):
            pass
        return images

    def _fill(self, place: np.ndarray, indices: np.ndarray) -> None:
        of = np.searchsorted(self.ends, indices, side="right")
        for number in np.unique(of):
            split, numbers = self.parts[number]
            first = self.ends[number] - len(numbers)
            at = np.flatnonzero(of == number)
            for row, image in zip(at, split.read(numbers[indices[at] - first]), strict=True):
                if image.dtype != np.uint8:
                    raise DataError(f"{split.where}: images are {image.dtype}; only uint8 can be used")
                if image.shape != self.shape[1:]:
                    raise DataError(
                        f"{split.where}: images differ in size, {self.shape[1:]} and {image.shape}; config.resize=SIDE "
                        "brings them to one"
                    )
                place[row] = image

    def among(self, chosen: np.ndarray) -> "Records":
        """The images at these indices, still on disk; for a single split."""
        ((split, numbers),) = self.parts
        return Records([(split, numbers[chosen])], self.shape[1:])


Pixels = np.ndarray | Records


def among(images: Pixels, chosen: np.ndarray) -> Pixels:
    """The images at these indices, from memory or disk."""
    return images.among(chosen) if isinstance(images, Records) else images[chosen]


def concatenate(images: Sequence[Pixels]) -> Pixels:
    """The images of several data sets, concatenated; all must have one size, and all be in memory or all on disk."""
    kept = [each for each in images if isinstance(each, Records)]
    if not kept:
        return np.concatenate([each for each in images if isinstance(each, np.ndarray)])
    return Records([part for each in kept for part in each.parts], kept[0].shape[1:])


def split_of(builder: Any, split: str, where: str, image: str, label: str, side: int) -> Split:
    """A split of a prepared TFDS data set.

    Raises:
      DataError: its files have no random access.
    """
    try:
        builder.as_data_source(split=split)
    except NotImplementedError:
        raise DataError(
            f"{where} is stored as {builder.info.file_format.value}, which cannot be read in any order; prepare it "
            "with --file_format=array_record, or set config.images=host"
        ) from None
    return Split(where, image, label, side, functools.partial(builder.as_data_source, split=split))


def unreadable(where: str, error: Exception) -> DataError:
    """The error to raise when records cannot be read."""
    return DataError(
        f"{where} cannot be read ({line(error)}); if it is damaged, delete that directory and prepare it again"
    )


def line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
