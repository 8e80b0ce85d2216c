"""The jobs of a sweep as a table that a person reads before starting it."""

from collections.abc import Sequence

from plasticity_jax.launch.jobs import Job
from plasticity_jax.runner.units import duration

SHOWN = 30  # jobs; of more, those at both ends


def table(jobs: Sequence[Job], new: int, hours: float | None = None) -> str:
    """A line for each job, and the totals.

    Args:
      jobs: all of the sweep, the `new` ones last.
      hours: the longest time that was asked for; jobs above it are marked.
    """
    shown = [*range(len(jobs))]
    if len(jobs) > SHOWN:
        shown = [*shown[: SHOWN - 5], *shown[-5:]]
    width = max([3, *(len(jobs[i].name) for i in shown)])
    lines = [_row("job", "runs", "images", "memory", "time", width)]
    for before, i in zip([-1, *shown], shown, strict=False):
        if i > before + 1:
            lines.append(f"... {i - before - 1} more jobs ...")
        job = jobs[i]
        long = hours and job.seconds and job.seconds > hours * 3600
        note = "  longer than --hours: goes on in slices" if long else ""
        lines.append(_row(job.name, *_cells(job.runs, job.images, job.bytes, job.seconds), width) + note)
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    total = f"{sum(seconds) / 3600:,.2f} device hours expected" if seconds else "time not measured"
    if len(seconds) not in (0, len(jobs)):
        total += f" ({len(jobs) - len(seconds)} jobs not measured)"
    planned = f"{len(jobs)} jobs ({new} new)" if new != len(jobs) else f"{len(jobs)} jobs"
    runs, images = (sum(getattr(job, key) for job in jobs) for key in ("runs", "images"))
    return "\n".join([*lines, f"{planned}, {runs:,} runs, {images:,} images, {total}"])


def _row(name: str, runs: str, images: str, memory: str, time: str, width: int) -> str:
    return f"{name:<{width}}  {runs:>6}  {images:>15}  {memory:>9}  {time:>11}"


def _cells(runs: int, images: int, memory: int | None, seconds: float | None) -> tuple[str, str, str, str]:
    needed = "-" if memory is None else f"{memory / 1e9:.3g} GB" if memory >= 1e9 else f"{memory / 1e6:.3g} MB"
    return f"{runs:,}", f"{images:,}", needed, "-" if seconds is None else duration(seconds)
