"""The progress line: position of the runs, speed and remaining time; and the same as facts for `status.json`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np

from plasticity_jax.runner.console import Line
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.runner.units import count, duration

REPORT_SECONDS = 10.0  # between two reports

Facts = dict[str, Any]


class Progress(Line):
    """One line on `stream` (stderr), rewritten in place on a terminal, else repeated every `every` seconds.

    `report`, if given, is called with the facts at the first update and then every `REPORT_SECONDS`.  `measuring` is
    the cost of all instruments, in training images; it counts for the remaining time, but not for the speed.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        every: float = 15.0,
        report: Callable[[Facts], None] | None = None,
        measuring: int = 0,
    ):
        super().__init__(stream, every)
        self.total = total  # training images in the whole study
        self.base = 0  # of these, in finished groups
        self.measuring = measuring
        self.measured_before = 0  # of this cost, in finished groups
        self.left: float | None = None  # seconds
        self.start_done: int | None = None
        self.start_work = 0
        self.start = time.monotonic()
        self.shown = -np.inf
        self.report = report
        self.reported = -np.inf
        self.place: Facts = {}
        self.done = 0
        self.rate = 0.0

    def update(
        self, pack: str, timetable: Timetable, steps: Sequence[int] | np.ndarray, accuracy: float, measured: int = 0
    ) -> None:
        """Shows the position of a group.

        Args:
          steps: of each run.
          accuracy: the last mean test accuracy in percent, or NaN.
          measured: the cost of the group's instruments so far, in training images.
        """
        batches = [run.stage.batch_size for run in timetable.group.runs]
        self.done = self.base + int(np.dot(np.asarray(steps, np.int64), batches))
        self.place = {"pack": pack, "stage": timetable.group.name, "step": int(np.max(steps))}
        work = self.done + self.measured_before + measured
        if self.start_done is None:
            self.start, self.start_done, self.start_work = time.monotonic(), self.done, work
        now = time.monotonic()
        seconds = max(now - self.start, 1e-9)
        self.rate = rate = (self.done - self.start_done) / seconds
        pace = (work - self.start_work) / seconds
        self.left = (self.total + self.measuring - work) / pace if pace else None
        if self.report and now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(self.facts())
        if now - self.shown < self.every:
            return
        self.shown = now
        epoch = float(np.mean(np.asarray(steps) / timetable.epoch_steps))
        end = float(np.mean(np.asarray(timetable.steps) / timetable.epoch_steps))
        parts = [
            f"{pack}/{timetable.group.name}",
            f"epoch {epoch:.1f}/{end:.1f}",
            count(len(steps), "run"),
            "" if np.isnan(accuracy) else f"test {accuracy:.2f} %",
            f"{rate:,.0f} images/s" if rate else "",
            f"ETA {duration(self.left)}" if self.left is not None else "",
        ]
        self.write("  ".join(part for part in parts if part))

    def facts(self) -> Facts:
        """Training images done and planned, images/s since the start, seconds left (None if unknown), and position."""
        return {
            **self.place,
            "images": self.done,
            "images_planned": self.total,
            "images_per_second": self.rate or None,
            "seconds_left": self.left,
        }

    def pause(self, seconds: float) -> None:
        """Excludes the last `seconds` from the speed."""
        self.start += seconds

    def finish(self, timetable: Timetable, measured: int = 0) -> None:
        """Counts a group as finished; `measured` is the cost of all its instruments, in training images."""
        self.measured_before += measured
        self.base += timetable.images()
        self.done = self.base
