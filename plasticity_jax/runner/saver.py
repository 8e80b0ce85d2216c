"""Saves rolling checkpoints of a group while it trains."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from plasticity_jax.config.plan import Group
from plasticity_jax.errors import Preempted
from plasticity_jax.parallel import multihost
from plasticity_jax.runner import lineup, schedule
from plasticity_jax.runner.context import Context
from plasticity_jax.storage import metrics
from plasticity_jax.storage.checkpoints import Checkpoints

Tree = Any
CHECKPOINT_SHARE = 50  # after a checkpoint that took t seconds the next one is at least 50 t later


@dataclasses.dataclass(frozen=True)
class Place:
    """The position of a group: the next event, the runs recorded to their end, and the last mean test accuracy (%).

    The mean is over the runs evaluated last.  memories: of the study's instruments, for all runs.
    """

    event: int
    closed: list[bool]
    accuracy: float
    memories: dict[str, Tree]


class Saver:
    """The rolling checkpoints of a group, each with the position in the table of measurements."""

    def __init__(
        self, context: Context, rolling: Checkpoints, count: int, path: Path, mark: metrics.Mark | None, runs: int
    ):
        self.context = context
        self.rolling = rolling
        self.count = count
        self.table = metrics.Table(path, mark, write=multihost.first())
        self.last = time.monotonic()
        self.pause = context.study.checkpoint_seconds
        self.lineup = lineup.whole(runs)
        self.pools = schedule.digests(context.timetables[rolling.directory.parent.name])

    def save(self, states: Tree, at: Place) -> None:
        """Saves now, and sets the time of the next checkpoint from its duration."""
        start = time.monotonic()
        self.count += 1
        with self.context.clock("checkpoint"):
            meta = {"next": at.event, "closed": at.closed, "mark": self.table.mark(), "pools": self.pools}
            self.rolling.save(
                self.count, saved_tree(self.lineup.fetch(lambda states: states, states), at.memories), meta
            )
        self.context.clock.save()
        self.last = time.monotonic()
        self.pause = max(self.context.study.checkpoint_seconds, CHECKPOINT_SHARE * (self.last - start))

    def save_if_due(self, states: Tree, at: Place) -> None:
        if multihost.agree(time.monotonic() - self.last > self.pause):
            self.save(states, at)

    def stop_if_asked(self, states: Tree, at: Place) -> None:
        """Saves and raises `Preempted` if a signal was received."""
        if multihost.any_of(self.context.stopped()):
            self.save(states, at)
            raise Preempted(f"stopped in stage {self.rolling.directory.parent.name}; saved")

    def close(self) -> None:
        """Deletes the rolling checkpoints when the group has ended."""
        self.rolling.close()
        multihost.once(lambda: shutil.rmtree(self.rolling.directory, ignore_errors=True))
        self.table.close()
        self.context.clock.save()


def saved_tree(states: Tree, memories: dict[str, Tree]) -> Tree:
    """The content of a rolling checkpoint."""
    return (states, memories) if memories else states


def is_place(group: Group, meta: Any) -> bool:
    """Whether the metadata of a rolling checkpoint has the form that a `Saver` writes."""
    closed = meta.get("closed") if isinstance(meta, dict) else None
    flags = isinstance(closed, list) and len(closed) == len(group.runs) and all(isinstance(c, bool) for c in closed)
    return flags and metrics.is_count(meta.get("next")) and metrics.is_mark(meta.get("mark"))
