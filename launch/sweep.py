"""Plan a sweep: cut its studies into jobs that fit into memory and time, and show them.

    python -m launch.sweep --config=FILE[:ARG] --workdir=SWEEP [--config.KEY=VALUE] [--dry_run]
        [--memory_gb=N] [--hours=H] [--runs_per_job=N] [--images_per_second=X] [--compile_for=h100]

Memory is what XLA says of the compiled programs, time what they take on this device; --images_per_second=X stands for
another one, as on a login node.  With --compile_for, memory is that of a device that need not be there (`v5e:2x4`).
Run again, it changes nothing; with more seeds, grid points or studies, the jobs that are there stay as they are, and
new ones are added.
"""

import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from plasticity_jax.config import paths, spec
from plasticity_jax.errors import BusyError, LabError
from plasticity_jax.launch import flags, jobs, table
from plasticity_jax.launch.exits import FINISHED
from plasticity_jax.parallel import cpu
from plasticity_jax.runner import commandline
from plasticity_jax.storage import workdir


def main(argv: Sequence[str] | None = None) -> int:
    """The command with these words, or those of this process; returns the exit status."""
    return commandline.start(run, argv)


def run(argv: Sequence[str]) -> int:
    """Plan the sweep that the flags ask for; returns the exit status."""
    del argv
    logging.getLogger("jax").setLevel(logging.WARNING)  # or it tells of every accelerator that is not there
    try:
        prepare()
    except LabError as error:
        commandline.leave(str(error))
    return FINISHED


def prepare() -> tuple[jobs.Job, ...]:
    """Plan the sweep that the flags ask for, show its jobs, and write them down unless it is a dry run; returns them.

    Raises:
      LabError: a config that is wrong or no growth of the one before, or a job that cannot be.
    """
    cpu.import_jax()  # seconds that a misspelt flag need not cost
    from plasticity_jax.config import parse
    from plasticity_jax.launch import growth, planner, prices
    from plasticity_jax.profiling import cost

    for flag in (flags.MEMORY_GB, flags.HOURS, flags.IMAGES_PER_SECOND):
        if flag.value is not None and not 0 < flag.value < float("inf"):
            raise LabError(f"--{flag.name}={flag.value}: must be above 0")
    if flags.COMPILE_FOR.value and flags.HOURS.value and not flags.IMAGES_PER_SECOND.value:
        raise LabError("--hours with --compile_for needs --images_per_second: what is not there cannot be timed")
    studies = planner.studies(flags.CONFIG.value)
    sweep = paths.given(flags.WORKDIR.value).absolute() if flags.WORKDIR.value else None
    target = None if flags.DRY_RUN.value else sweep
    with _turn(target) if target else contextlib.nullcontext():
        old, stored = _stored(sweep)
        studies = {
            key: growth.grown(key, stored[key], study) if key in stored else study for key, study in studies.items()
        }
        gone = [key for key in stored if key not in studies]
        if gone:
            raise LabError(f"study {gone[0]} is gone from the config; a sweep that was begun only grows")
        planned = old
        if planner.anything_missing(studies, old):
            with cost.begin(flags.COMPILE_FOR.value):
                memory = round(flags.MEMORY_GB.value * 1e9) if flags.MEMORY_GB.value else cost.free()
                seconds = flags.HOURS.value * 3600 if flags.HOURS.value else None
                budget = planner.Budget(memory, seconds, flags.RUNS_PER_JOB.value)
                planned = planner.plan(studies, old, prices.Market(studies, flags.IMAGES_PER_SECOND.value), budget)
        if target:
            for job in planned:
                paths.check_length(jobs.directory(target, job))
            for key, study in studies.items():  # first: a plan without its studies is worth nothing
                if study != stored.get(key):
                    workdir.write_json(target / key / "config.json", parse.describe(study))
            if planned != old:
                jobs.write(target, planned)
    print(table.table(planned, new=len(planned) - len(old), hours=flags.HOURS.value))
    return planned


def _stored(sweep: Path | None) -> tuple[tuple[jobs.Job, ...], dict[str, spec.Study]]:
    """The jobs and the studies that a sweep has so far."""
    if sweep is None or not (sweep / "sweep.json").exists():
        return (), {}
    listed = jobs.read(sweep)
    return listed, {key: jobs.whole(sweep, key) for key in dict.fromkeys(job.study for job in listed)}


@contextlib.contextmanager
def _turn(sweep: Path) -> Iterator[None]:
    """Hold the sweep for this process; wait if another one plans it."""
    with contextlib.ExitStack() as stack:
        for wait in itertools.count():
            try:
                stack.enter_context(workdir.lock(sweep))
                break
            except BusyError:
                if not wait:
                    print(f"another process plans {sweep}; waiting for it", file=sys.stderr)
                time.sleep(0.3)
        yield


if __name__ == "__main__":
    sys.exit(main())
