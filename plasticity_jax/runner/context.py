"""What all stages of a pack share: the network, the data on the device, the compiled programs, the clock."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plasticity_jax.config import spec
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner.progress import Progress
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.timers import Clock
from plasticity_jax.training import step


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """A pack that is being worked on.

    directory: that of the pack.  network: its `state.network_like`.  stopped: whether a signal came.
    """

    directory: Path
    pack: spec.Pack
    study: spec.Study
    network: tuple[Any, Any]
    dataset: Dataset
    images: step.Images
    test_images: step.Images
    timetables: Mapping[str, Timetable]
    programs: Programs
    clock: Clock
    progress: Progress
    stopped: Callable[[], bool]

    @property
    def slots(self) -> int:
        """The length that every pool of the pack is padded to, so that groups can share programs."""
        return max(len(pool.indices) for times in self.timetables.values() for pool in times.pools)

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the time inside as `kind`, but for what compilation took of it."""
        compiled, start = self.programs.seconds, time.perf_counter()
        try:
            yield
        finally:
            compiling = self.programs.seconds - compiled
            self.clock.add("compile", compiling)
            self.clock.add(kind, time.perf_counter() - start - compiling)
            self.progress.pause(compiling)

    def checkpoints(self, group: str, kind: str, keep: int | None = None) -> Checkpoints:
        return Checkpoints(self.directory / group / kind, keep, self.progress.note)
