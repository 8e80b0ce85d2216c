"""Plan a sweep: divide its studies into jobs that fit into memory and time, and show them.

    python -m launch.sweep --config=FILE[:ARG] --workdir=SWEEP [--config.KEY=VALUE] [--dry_run]
        [--memory_gb=N] [--hours=H] [--runs_per_job=N] [--images_per_second=X] [--compile_for=h100] [--begun=DIR]

Memory is XLA's account of the compiled programs; time is measured on this device, or follows from
--images_per_second=X, as for a login node.  With --compile_for, memory is that of a described device (`v5e:2x4`).
Planning again changes nothing; with more seeds, grid points or studies, existing jobs are kept and new ones added.
--begun=DIR takes over what `main` trained in DIR, so that its study can get more seeds and grid points too.
"""

import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from plasticity_jax.config import paths, spec
from plasticity_jax.errors import BusyError, LabError
from plasticity_jax.launch import jobs
from plasticity_jax.launch.arguments import FINISHED
from plasticity_jax.parallel import cpu
from plasticity_jax.runner import commandline
from plasticity_jax.runner.units import count, duration
from plasticity_jax.storage import workdir

flags.adopt_module_key_flags(commandline)
CONFIG, WORKDIR, DRY_RUN = commandline.CONFIG, commandline.WORKDIR, commandline.DRY_RUN
COMPILE_FOR = commandline.COMPILE_FOR
MEMORY_GB = flags.DEFINE_float("memory_gb", None, "Memory of a job's device; default: free memory of this one.", 0.0)
HOURS = flags.DEFINE_float("hours", None, "Largest expected time of a job.", 0.0)
RUNS_PER_JOB = flags.DEFINE_integer("runs_per_job", None, "Largest number of runs of a job.", 1)
IMAGES_PER_SECOND = flags.DEFINE_float(
    "images_per_second", None, "Speed of the machine that will train, instead of measuring this one.", 0.0
)
BEGUN = flags.DEFINE_string("begun", None, "Directory in which main trained the study with fewer seeds or points.")

SHOWN = 30  # largest number of jobs in the table; the first and last ones if there are more


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or those of the process; returns the exit status."""
    return commandline.start(run, argv)


def run(argv: Sequence[str]) -> int:
    """Plans the sweep given by the flags; returns the exit status."""
    del argv
    logging.getLogger("jax").setLevel(logging.WARNING)  # otherwise it reports every accelerator that is missing
    try:
        prepare()
    except LabError as error:
        commandline.leave(str(error))
    return FINISHED


def prepare() -> tuple[jobs.Job, ...]:
    """Plans the sweep given by the flags, prints its jobs, and writes them unless it is a dry run; returns them.

    Raises:
      LabError: the config is wrong or not an extension of the former one, or a job cannot be trained.
    """
    cpu.import_jax()  # takes seconds, so it comes after the check of flags
    from plasticity_jax.config import parse
    from plasticity_jax.launch import begun, growth, planner, prices
    from plasticity_jax.profiling import cost

    for flag in (MEMORY_GB, HOURS, IMAGES_PER_SECOND):
        if flag.value is not None and not 0 < flag.value < float("inf"):
            raise LabError(f"--{flag.name}={flag.value}: must be above 0")
    if COMPILE_FOR.value and HOURS.value and not IMAGES_PER_SECOND.value:
        raise LabError("--hours with --compile_for needs --images_per_second: a described device cannot be timed")
    studies = planner.studies(CONFIG.value)
    sweep = paths.given(WORKDIR.value).absolute() if WORKDIR.value else None
    target = None if DRY_RUN.value else sweep
    with _turn(target) if target else contextlib.nullcontext():
        listed, stored = _stored(sweep)
        old, before = listed, paths.given(BEGUN.value).absolute() if BEGUN.value else None
        if before and not listed:
            old, stored = begun.plan(before, studies)
        studies = {
            key: growth.grown(key, stored[key], study) if key in stored else study for key, study in studies.items()
        }
        gone = [key for key in stored if key not in studies]
        if gone:
            raise LabError(f"study {gone[0]} is missing from the config; a sweep that was begun can only grow")
        planned = old
        if planner.anything_missing(studies, old):
            with cost.begin(COMPILE_FOR.value):
                memory = round(MEMORY_GB.value * 1e9) if MEMORY_GB.value else cost.free()
                seconds = HOURS.value * 3600 if HOURS.value else None
                budget = planner.Budget(memory, seconds, RUNS_PER_JOB.value)
                planned = planner.plan(studies, old, prices.Market(studies, IMAGES_PER_SECOND.value), budget)
        if target:
            for job in planned:
                paths.check_length(jobs.directory(target, job))
            for key, study in studies.items():  # before sweep.json, which is useless without them
                if not (target / key / jobs.PLANNED).exists():
                    workdir.write_json(target / key / jobs.PLANNED, list(stored.get(key, study).seeds))
                if study != stored.get(key) or not listed:
                    workdir.write_json(target / key / "config.json", parse.describe(study))
            if before and not listed:
                begun.copy(before, target, old, stored)
            if planned != listed:
                jobs.write(target, planned)
    print(table(planned, new=len(planned) - len(old), hours=HOURS.value))
    return planned


def _stored(sweep: Path | None) -> tuple[tuple[jobs.Job, ...], dict[str, spec.Study]]:
    """The jobs and studies already stored in a sweep."""
    if sweep is None or not (sweep / "sweep.json").exists():
        return (), {}
    listed = jobs.read(sweep)
    return listed, {key: jobs.whole(sweep, key) for key in dict.fromkeys(job.study for job in listed)}


@contextlib.contextmanager
def _turn(sweep: Path) -> Iterator[None]:
    """Context that locks the sweep; waits while another process plans it."""
    with contextlib.ExitStack() as stack:
        for wait in itertools.count():
            try:
                stack.enter_context(workdir.lock(sweep))
                break
            except BusyError:
                if not wait:
                    print(f"another process is planning {sweep}; waiting for it", file=sys.stderr)
                time.sleep(0.3)
        yield


def table(listed: Sequence[jobs.Job], new: int, hours: float | None = None) -> str:
    """A line for each job, and the totals.

    Args:
      listed: all of the sweep, the `new` ones last.
      hours: the limit of a job's time; jobs above it are marked.
    """
    shown = [*range(len(listed))]
    if len(listed) > SHOWN:
        shown = [*shown[: SHOWN - 5], *shown[-5:]]
    width = max([3, *(len(listed[i].name) for i in shown)])
    lines = [_row("job", "runs", "images", "memory", "time", width)]
    for before, i in zip([-1, *shown], shown, strict=False):
        if i > before + 1:
            lines.append(f"... {i - before - 1} more jobs ...")
        job = listed[i]
        long = hours and job.seconds and job.seconds > hours * 3600
        note = "  longer than --hours: needs several restarts" if long else ""
        lines.append(_row(job.name, *_cells(job.runs, job.images, job.bytes, job.seconds), width) + note)
    seconds = [job.seconds for job in listed if job.seconds is not None]
    total = f"{sum(seconds) / 3600:,.2f} device hours expected" if seconds else "time not measured"
    if len(seconds) not in (0, len(listed)):
        total += f" ({count(len(listed) - len(seconds), 'job')} not measured)"
    planned = count(len(listed), "job") + (f" ({new} new)" if new != len(listed) else "")
    runs, images = (sum(getattr(job, key) for job in listed) for key in ("runs", "images"))
    return "\n".join([*lines, f"{planned}, {count(runs, 'run')}, {images:,} images, {total}"])


def _row(name: str, runs: str, images: str, memory: str, time: str, width: int) -> str:
    return f"{name:<{width}}  {runs:>6}  {images:>15}  {memory:>9}  {time:>11}"


def _cells(runs: int, images: int, memory: int | None, seconds: float | None) -> tuple[str, str, str, str]:
    needed = "-" if memory is None else f"{memory / 1e9:.3g} GB" if memory >= 1e9 else f"{memory / 1e6:.3g} MB"
    return f"{runs:,}", f"{images:,}", needed, "-" if seconds is None else duration(seconds)


if __name__ == "__main__":
    sys.exit(main())
