"""Train one job of a sweep in this process; every launcher starts this command.

    python -m launch.job --workdir=SWEEP --job=NAME_OR_INDEX [--tries=3]

Exit status: 0 finished, 1 failed for good, 75 start it again (stopped and saved, in use, or failed with tries left).
SIGTERM, SIGINT, SIGUSR1 and SIGHUP make it save and stop.
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax.config import spec
from plasticity_jax.errors import BusyError, ConfigError, LabError, LostError, Preempted
from plasticity_jax.launch import attempts, jobs
from plasticity_jax.launch.arguments import AGAIN, FAILED, FINISHED, Parser, directory, positive
from plasticity_jax.parallel import cpu, multihost
from plasticity_jax.runner import output, signals
from plasticity_jax.storage import workdir


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the job given by the flags; returns the exit status."""
    output.outlive_readers()
    parser = Parser("launch.job", __doc__.splitlines()[0])
    parser.add_argument("--workdir", type=directory, required=True, help="the directory of the sweep")
    parser.add_argument("--job", required=True, help="the job's name, or its index in sweep.json")
    parser.add_argument("--tries", type=positive, default=3, help="failures at the same place before it is given up")
    options = parser.parse_args(argv)
    try:
        job = jobs.find(jobs.read(options.workdir), options.job)
        return train(options.workdir, job, options.tries)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def train(sweep: Path, job: jobs.Job, tries: int) -> int:
    """Trains a job or resumes it, and updates its attempts.json; returns the exit status."""
    directory = jobs.own_directory(sweep, job)
    if (code := _outcome(_result(directory))) is not None:
        return code
    if attempts.read(directory).gave_up:
        print(f"error: {job.name} gave up; launch the sweep again to give it new tries", file=sys.stderr)
        return FAILED
    study = jobs.study(sweep, job)
    logging.getLogger("jax").setLevel(logging.WARNING)  # otherwise it reports every accelerator that is missing
    cpu.import_jax()  # takes seconds, so not for a finished job
    multihost.join()
    # One of several processes must not end, nor miss a signal, before it can inform the others.
    with contextlib.nullcontext() if multihost.alone() else signals.listening():
        return _attempt(job, study, directory, tries)


def _attempt(job: jobs.Job, study: spec.Study, directory: Path, tries: int) -> int:
    """Trains the study of a job once; returns the exit status."""
    from plasticity_jax import experiment

    tried = attempts.read(directory).started(attempts.place(directory))
    if multihost.first():
        attempts.write(directory, tried)
    try:
        return FAILED if _outcome(experiment.run_study(study, directory)) else FINISHED
    except Preempted as stop:
        print(f"{job.name}: {stop}", file=sys.stderr)
        return AGAIN
    except KeyboardInterrupt:
        return AGAIN
    except (BusyError, LostError) as error:  # the directory is another process's
        print(f"{job.name}: {error}", file=sys.stderr)
        return multihost.leave(AGAIN)
    except Exception as error:
        line = " ".join((str(error) or type(error).__name__).split("\n")[0].split())
        tried = tried.failed(line, attempts.place(directory), tries, for_good=isinstance(error, ConfigError))
        attempts.write(directory, tried)  # by the process that failed, since the first may not learn the reason
        if not isinstance(error, LabError):
            logging.exception("%s failed", job.name)
        left = "it gave up" if tried.gave_up else f"try {tried.tries} of {tries} from {tried.place}"
        print(f"error: {job.name}: {line} ({left})", file=sys.stderr)
        return multihost.leave(FAILED if tried.gave_up else AGAIN)


def _result(directory: Path) -> object:
    """What is in result.json; None if it is missing or damaged, and then written again."""
    try:
        return workdir.read_json(directory / "result.json")
    except LabError:
        return None


def _outcome(result: object) -> int | None:
    """The exit status for a result, `FAILED` if all runs diverged; None if `result` is not a valid result."""
    if not isinstance(result, dict) or not isinstance(result.get("runs"), list):
        return None
    return {"finished": FINISHED, "failed": FAILED}.get(str(result.get("status")))


if __name__ == "__main__":
    sys.exit(main())
