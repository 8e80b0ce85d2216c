"""Sends windows of images to the devices in sequence; the next one is read and sent while the current one is in use."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from plasticity_jax.runner.windows import Training
from plasticity_jax.storage.timers import Clock
from plasticity_jax.training.inputs import Images

T = TypeVar("T")


def one_ahead(makers: Sequence[Callable[[], T]]) -> Iterator[T]:
    """Yields the result of each function; a thread computes the next one while the current one is in use."""
    if len(makers) == 1:
        yield makers[0]()
        return
    with ThreadPoolExecutor(1) as thread:
        coming: Future[T] | None = None
        for make in makers:
            made, coming = coming, thread.submit(make)
            if made:
                yield made.result()
        if coming:
            yield coming.result()


class Feed:
    """The sequence of windows that the active runs train on.

    The first steps of all windows follow from those of the first window and from `targets`: for each event in order,
    the steps [A] at which the runs stop.
    """

    def __init__(self, training: Training, targets: Sequence[np.ndarray], clock: Clock):
        self.training = training
        self.targets = targets
        self.clock = clock
        self.thread = ThreadPoolExecutor(1)  # ends with this object
        self.first: np.ndarray | None = None
        self.images: Images | None = None
        if not training.window.room:  # all images are on the devices: one window serves all steps
            self.first = np.zeros(len(targets[0]), np.int32)
            self.images = training.filled(self.first)
        self.coming: tuple[np.ndarray, Future[tuple[Images, float]]] | None = None

    def now(
        self, steps: np.ndarray, done: np.ndarray, targets: np.ndarray, idle: Callable[[], bool]
    ) -> tuple[Images, np.ndarray]:
        """Returns the images for runs at these steps [A], and the steps [A] up to which they suffice.

        Waits until the window is read and sent.  The clock counts as `input` the time that the devices were idle
        meanwhile (`idle` tells), and as `gather` the time to read and send the images.

        Args:
          done: [A], whether a run has ended.
          targets: the steps [A] at which the runs stop next.
        """
        if self.first is not None and self.images is not None:
            limit = self.first + self.training.steps
            if np.any(~done & (steps < np.minimum(targets, limit))) or np.all(done | (steps >= targets)):
                return self.images, limit
            self.images = None  # frees its memory early; the programs hold what they still use
        if self.coming is None or np.any(~done & (self.coming[0] != steps)):
            self.coming = steps, self.thread.submit(self._made, steps)
        start = time.perf_counter()
        self.first, made = self.coming
        self.images, taken = made.result()
        if idle():
            self.clock.add("input", time.perf_counter() - start)
        self.clock.add("gather", taken)
        following = self._following(self.first)
        self.coming = None if following is None else (following, self.thread.submit(self._made, following))
        return self.images, self.first + self.training.steps

    def _made(self, first: np.ndarray) -> tuple[Images, float]:
        start = time.perf_counter()
        return self.training.filled(first), time.perf_counter() - start

    def _following(self, first: np.ndarray) -> np.ndarray | None:
        """The first steps of the window after the one at `first` if no run ends early; None if it is the last one."""
        limit = first + self.training.steps
        return next((np.minimum(targets, limit) for targets in self.targets if np.any(targets > limit)), None)
