"""Dispatches training programs in calls of several steps, two of them in flight to keep the device busy.

A call lasts about `CALL_SECONDS`: long compared with the overhead of a dispatch, short enough to react to a signal.
The results of a call are read after the next one has been dispatched.
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
CALL_SECONDS = 0.5  # length of one call; the reaction to a signal takes up to two calls


def fitting(taken: int, seconds: float) -> int:
    """The amount of work for a call of `CALL_SECONDS`, if `taken` took `seconds`; equal in all processes."""
    return multihost.agree(int(np.clip(taken * CALL_SECONDS / max(seconds, 1e-3), 1, 4 * max(taken, 1))))


class Pace:
    """Trains the runs of a line-up to `targets`; `steps` and `done` [R] are the last values read of all runs."""

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
        """Starts from these states; waits until they are computed."""
        self.flying.clear()
        self.steps, self.done = self.lineup.fetch(lambda states: (states.step, states.done), states, few=True)
        self.expected = self.steps[
            self.lineup.runs
        ]  # where the runs will be after all calls so far, if none of them ends early

    def arrived(self, targets: np.ndarray) -> bool:
        """Whether every run has reached its target or has ended."""
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
        """Whether the devices have finished all dispatched calls."""
        return all(leaf.is_ready() for _, progress in self.flying for leaf in progress)

    def _land(self) -> None:
        """Reads the result of the oldest call, and sets the length of the next one from its time."""
        taken, progress = self.flying.pop(0)
        fetched = run_axis.fetch(progress, len(self.lineup.runs), few=True)
        self.steps, self.done = map(self.lineup.among, fetched, (self.steps, self.done))
        now = time.perf_counter()
        seconds, self.landed = now - self.landed, now
        self.size = fitting(taken, seconds)
