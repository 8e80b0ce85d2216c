"""The context of a pack: data, network, programs and timetables, and while it trains its directory and clock."""

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
    """Everything needed to compute a pack, independent of a directory; nothing is on a device until it is needed.

    pack: with resolved dtype.  network: its `state.network_like`.
    timetables: of its groups by name, in the order in which they train.
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
        """The resolved strategy, dtype and place of the images."""
        return {"strategy": self.programs.strategy, "dtype": self.pack.model.dtype, "images": self.place}

    @property
    def in_windows(self) -> bool:
        """Whether the images are not stored on the devices, but copied there in windows."""
        return self.place != "device"

    @property
    def slots(self) -> int:
        """The length to which all pools of the pack are padded, so that groups can share programs."""
        return max(len(pool.indices) for times in self.timetables.values() for pool in times.pools)

    def states_like(self, group: Group) -> TrainState:
        """The shapes of the states of a group, leaves [R, ...]."""
        return networks.states_like(group, self.network, self.programs.own_remedies)


@dataclasses.dataclass(frozen=True, eq=False)
class Context(Compute):
    """A pack that trains in `directory`; `stopped` returns whether a signal was received.

    left: by group name, the networks that the last group left on the devices for the next one.
    """

    directory: Path
    clock: Clock
    progress: Progress
    stopped: Callable[[], bool]
    left: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, kind: str, group: str = "") -> Iterator[None]:
        """Context that adds its time, without compilation, to the clock as `kind` and as `kind/group`."""
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
        """The parts of a group's states that are saved at its end, see `networks.kept`."""
        return networks.kept(group, [times.group for times in self.timetables.values()], states)

    def checkpoints(self, group: str, kind: str, keep: int | None = None) -> Checkpoints:
        return Checkpoints(self.directory / group / kind, keep, self.progress.note)
