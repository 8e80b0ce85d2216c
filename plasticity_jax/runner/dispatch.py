"""How many steps one call into a program trains, and how the device is kept busy between calls.

A call lasts about `CALL_SECONDS`: long against the cost of a dispatch, short enough to notice a signal.  Two calls are
in flight at a time: the results of one are read after the next has been dispatched.
"""

import time
from typing import Any

import numpy as np

from plasticity_jax.config.plan import Group
from plasticity_jax.parallel import multihost, run_axis
from plasticity_jax.runner import windows
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.feed import Feed
from plasticity_jax.runner.lineup import Lineup
from plasticity_jax.training import step

Tree = Any
CALL_SECONDS = 0.5  # the length of one call; a signal may be noticed two of them late


def fitting(taken: int, seconds: float) -> int:
    """How much work makes a call of `CALL_SECONDS`, if so much was `taken` in so many `seconds`; in all processes."""
    return multihost.agree(int(np.clip(taken * CALL_SECONDS / max(seconds, 1e-3), 1, 4 * max(taken, 1))))


class Pace:
    """Trains the runs of a line-up towards `targets`; `steps` and `done` [R] are what was last read of all runs."""

    def __init__(self, group: Group, context: Context, rows: step.Task, lineup: Lineup):
        self.group = group
        self.context = context
        self.lineup = lineup
        rows = run_axis.take(rows, lineup.runs)
        self.epoch_steps = rows.epoch_steps
        self.rows = context.programs.place(rows)
        self.size = 1  # steps of the next call
        times = context.timetables[group.name]
        stops = [np.array([times.target(run, epoch) for run in lineup.runs]) for epoch in times.events]
        self.feed = Feed(windows.training(context, times, lineup.runs), stops, context.clock)
        self.steps: Any = None
        self.done: Any = None
        self.expected: Any = None
        self.flying: list[tuple[int, Tree]] = []
        self.landed = 0.0

    def start(self, states: Tree) -> None:
        """Begin with these states; waits until they are computed."""
        self.flying.clear()
        self.steps, self.done = self.lineup.fetch(lambda states: (states.step, states.done), states, few=True)
        self.expected = self.steps[
            self.lineup.runs
        ]  # where the runs will be after all calls so far, if none of them ends early

    def arrived(self, targets: np.ndarray) -> bool:
        """Whether every run is at its target or at its end."""
        return bool(np.all(self.done | (self.steps >= targets)))

    def advance(self, states: Tree, targets: np.ndarray) -> Tree:
        """Dispatch one call; returns states that may still be computing and never pass their target step."""
        targets, done = targets[self.lineup.runs], self.done[self.lineup.runs]
        start, compiled = time.perf_counter(), self.context.programs.seconds
        with self.context.timed("train", self.group.name):
            images, limit = self.feed.now(self.expected, done, targets, self._idle)
            until = np.minimum(np.minimum(targets, limit), self.expected + self.size).astype(np.int32)
            rows = self.rows, self.context.programs.place(until, idle=0)
            states, progress = self.context.programs.advance(self.group.stage, states, rows, images)
            if not self.flying:
                self.landed = start + self.context.programs.seconds - compiled
            after = np.minimum(until, self.expected + self.epoch_steps)
            self.flying.append((int(np.max(after - self.expected)), progress))
            self.expected = after
            while len(self.flying) > (0 if np.all(after >= targets) else 1):
                self._land()
        return states

    def _idle(self) -> bool:
        """Whether the devices have done all that they were given."""
        return all(leaf.is_ready() for _, progress in self.flying for leaf in progress)

    def _land(self) -> None:
        """Read what the oldest call did, and choose from the time it took how long the next will be."""
        taken, progress = self.flying.pop(0)
        fetched = run_axis.fetch(progress, len(self.lineup.runs), few=True)
        self.steps, self.done = map(self.lineup.among, fetched, (self.steps, self.done))
        now = time.perf_counter()
        seconds, self.landed = now - self.landed, now
        self.size = fitting(taken, seconds)
