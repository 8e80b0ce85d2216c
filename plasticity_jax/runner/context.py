"""What all stages of a pack share: what they compute with, and where what they train is kept."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plasticity_jax.config import spec
from plasticity_jax.config.plan import Group
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner.parts import Parts
from plasticity_jax.runner.progress import Progress
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.storage import networks
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.timers import Clock
from plasticity_jax.training import step
from plasticity_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Compute:
    """What a pack computes with: no file of it is known here, and nothing is on a device before it is needed.

    pack: with the dtype that is taken.  network: its `state.network_like`.
    timetables: of its groups by their names, in the order in which they train.
    images, test_images: all of them, on the host.  place: `device` or `host`, where they are stored during training.
    """

    pack: spec.Pack
    study: spec.Study
    dataset: Dataset
    parts: Parts
    timetables: Mapping[str, Timetable]
    network: tuple[Any, Any]
    images: step.Images
    test_images: step.Images
    programs: Programs
    place: str

    @property
    def choice(self) -> dict[str, str]:
        """The strategy and the dtype that it trains with, and where the images lie."""
        return {"strategy": self.programs.strategy, "dtype": self.pack.model.dtype, "images": self.place}

    @property
    def in_windows(self) -> bool:
        """Whether the images lie elsewhere than on the devices, which are sent some of them at a time."""
        return self.place != "device"

    @property
    def slots(self) -> int:
        """The length that every pool of the pack is padded to, so that groups can share programs."""
        return max(len(pool.indices) for times in self.timetables.values() for pool in times.pools)

    def states_like(self, group: Group) -> TrainState:
        """The shapes of the states of a group, leaves [R, ...]."""
        return networks.states_like(group, self.network, self.programs.own_remedies)


@dataclasses.dataclass(frozen=True, eq=False)
class Context(Compute):
    """A pack that trains: `directory` is its own, and `stopped` says whether a signal came.

    left: what the group that ended last has left on the devices for the next one, by its name.
    """

    directory: Path
    clock: Clock
    progress: Progress
    stopped: Callable[[], bool]
    left: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, kind: str, group: str = "") -> Iterator[None]:
        """Count the time inside as `kind`, and as that of a group too, but for what compilation took of it."""
        compiled, start = self.programs.seconds, time.perf_counter()
        try:
            yield
        finally:
            compiling = self.programs.seconds - compiled
            self.clock.add("compile", compiling)
            taken = time.perf_counter() - start - compiling
            for entry in (kind, f"{kind}/{group}") if group else (kind,):
                self.clock.add(entry, taken)
            self.progress.pause(compiling)

    def kept(self, group: Group, states: Any) -> dict[str, Any]:
        """The parts of the states of a group that outlive it: `networks.kept`."""
        return networks.kept(group, [times.group for times in self.timetables.values()], states)

    def checkpoints(self, group: str, kind: str, keep: int | None = None) -> Checkpoints:
        return Checkpoints(self.directory / group / kind, keep, self.progress.note)
