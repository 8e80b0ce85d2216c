"""What a person sees: the plan at the start, one live line with the time left, the table at the end."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np

from plasticity_jax.timetable import Timetable


class Progress:
    """One line on `stream`, rewritten in place on a terminal, else repeated every `every` seconds."""

    def __init__(self, total: int, done: int, stream: TextIO = sys.stderr, every: float = 15.0):
        self.total = total  # training images in the whole study
        self.base = done  # of these, in legs that are over
        self.start_done: int | None = None
        self.stream = stream
        self.terminal = stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.start = time.monotonic()
        self.shown = -np.inf
        self.width = 0

    def update(self, pack: str, timetable: Timetable, steps: Sequence[int], accuracy: float) -> None:
        """Show where the runs of a leg are: `steps` per run, and their last mean test accuracy in percent (or NaN)."""
        batches = [run.stage.batch_size for run in timetable.leg.runs]
        done = self.base + int(np.dot(np.asarray(steps, np.int64), batches))
        if self.start_done is None:
            self.start, self.start_done = time.monotonic(), done
        now = time.monotonic()
        if now - self.shown < self.every:
            return
        self.shown = now
        rate = (done - self.start_done) / max(now - self.start, 1e-9)
        epoch = float(np.mean(np.asarray(steps) / timetable.epoch_steps))
        end = float(np.mean(np.asarray(timetable.steps) / timetable.epoch_steps))
        parts = [
            f"{pack}/{timetable.leg.name}",
            f"epoch {epoch:.1f}/{end:.1f}",
            f"{len(steps)} runs",
            "" if np.isnan(accuracy) else f"test {accuracy:.2f} %",
            f"{rate:,.0f} images/s" if rate else "",
            f"ETA {duration((self.total - done) / rate)}" if rate else "",
        ]
        self.write("  ".join(part for part in parts if part))

    def pause(self, seconds: float) -> None:
        """Leave `seconds` just gone by out of the rate."""
        self.start += seconds

    def write(self, line: str) -> None:
        """Show a line that the next one replaces."""
        if self.terminal:
            self.stream.write("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def note(self, line: str) -> None:
        """Show a line that stays."""
        self.stream.write("\r".ljust(self.width + 1) + "\r" if self.terminal and self.width else "")
        self.stream.write(line + "\n")
        self.stream.flush()
        self.width = 0

    def finish(self, timetable: Timetable) -> None:
        """Count a leg as over."""
        self.base += timetable.images()


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 05 s` or `7 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def describe(
    title: str,
    timetables: Mapping[str, Timetable],
    parameters: str,
    device: str,
    strategy: str,
    compilations: int,
    shared: int,
) -> str:
    """The plan of one pack as text: its stages, steps, parameters, device and expected compilations."""
    lines = [title]
    for name, timetable in timetables.items():
        runs = timetable.leg.runs
        stage = runs[0].stage
        branches = list(dict.fromkeys(run.branch for run in runs))
        lines.append(
            f"  stage {name}: {len(runs)} runs ({', '.join(branches)}), {_span(timetable.steps)} steps "
            f"= {_span([s / e for s, e in zip(timetable.steps, timetable.epoch_steps, strict=True)])} epochs "
            f"of {_span([len(pool.indices) for pool in timetable.pools])} images in batches of {stage.batch_size}, "
            f"{stage.optim.name} at {_span([run.stage.optim.learning_rate for run in runs])}, "
            f"evaluated {len(timetable.events)} times"
        )
    images = sum(timetable.images() for timetable in timetables.values())
    lines += [
        f"  {images:,} training images in all"
        + (f"; branches that share a stage save {shared:,} more" if shared else ""),
        f"  {parameters}",
        f"  device: {device}; strategy {strategy}; {compilations} programs to compile",
    ]
    return "\n".join(lines)


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:,.6g}" for value in (min(values), max(values)))
    return low if low == high else f"{low}-{high}"
