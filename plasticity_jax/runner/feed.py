"""Windows of images one after another: the next one is read and sent while the programs work on the one before."""

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
    """What each of them makes, the next one in another thread while the one before is in use."""
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
    """The windows that the runs of a line-up train on.

    Where each begins follows from where the first one does, and from `targets`: at all events in their order, the steps
    [A] at which the runs stop.
    """

    def __init__(self, training: Training, targets: Sequence[np.ndarray], clock: Clock):
        self.training = training
        self.targets = targets
        self.clock = clock
        self.thread = ThreadPoolExecutor(1)  # ends with this object
        self.first: np.ndarray | None = None
        self.images: Images | None = None
        if not training.window.room:  # all images are there, for all steps
            self.first = np.zeros(len(targets[0]), np.int32)
            self.images = training.filled(self.first)
        self.coming: tuple[np.ndarray, Future[tuple[Images, float]]] | None = None

    def now(
        self, steps: np.ndarray, done: np.ndarray, targets: np.ndarray, idle: Callable[[], bool]
    ) -> tuple[Images, np.ndarray]:
        """The images for runs that are at these steps [A] on their way to their targets; and how far they are good.

        Counted as `input` is the time that the devices stood still for it, told by `idle`, and as `gather` what it took
        to read and send the images.
        """
        if self.first is not None and self.images is not None:
            limit = self.first + self.training.steps
            if np.any(~done & (steps < np.minimum(targets, limit))) or np.all(done | (steps >= targets)):
                return self.images, limit
            self.images = None  # before the next one is there, since the programs have what they need of it
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
        """Where the window after that at `first` begins, if no run ends early; None where the runs end before."""
        limit = first + self.training.steps
        return next((np.minimum(targets, limit) for targets in self.targets if np.any(targets > limit)), None)
