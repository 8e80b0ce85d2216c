"""Plan a sweep and run its missing jobs on this machine, each in its own process.

    python -m launch.local --config=FILE[:ARG] --workdir=SWEEP [--parallel=N] [--tries=3] [flags of launch.sweep]
    python -m launch.local --workdir=SWEEP                      a sweep that is planned already

N jobs at a time share the GPUs or the CPU cores.  Jobs held by another launcher are waited for.  SIGINT, SIGTERM or
SIGHUP (a closed terminal) makes the jobs save and stop.

Exit status: 0 all jobs finished, 1 some failed, 75 stopped (the same command continues).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import plasticity_jax
from plasticity_jax.errors import LabError
from plasticity_jax.launch import attempts, job_states, jobs
from plasticity_jax.launch.arguments import AGAIN, FAILED, Parser, directory, positive
from plasticity_jax.launch.workers import Crew
from plasticity_jax.runner import output, signals

ROOT = Path(plasticity_jax.__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Plans, then runs; returns the exit status."""
    output.outlive_readers()
    parser = Parser("launch.local", __doc__.splitlines()[0])
    parser.add_argument("--workdir", type=directory, help="directory of the sweep; the same directory again resumes")
    parser.add_argument("--parallel", type=positive, default=1, help="jobs at a time")
    parser.add_argument("--tries", type=positive, default=3, help="failures at the same place before a job is given up")
    parser.add_argument("--dry_run", action="store_true", help="only print the jobs")
    options, rest = parser.parse_known_args(argv)
    planning = options.dry_run or any(word.lstrip("-").startswith(("config", "flagfile")) for word in rest)
    if options.workdir and not planning:
        if rest:
            parser.error(f"{rest[0]}: only for planning, which needs --config; without it, the planned jobs run")
        return _run(options)
    # A child process plans, since planning uses jax, and this process must not hold the memory of a GPU.
    command = [sys.executable, "-m", "plasticity_jax.launch.sweep", *rest, *["--dry_run"] * options.dry_run]
    command += [f"--workdir={options.workdir}"] if options.workdir else []
    planned = _plan(command)
    return planned if planned or options.dry_run else _run(options)


def _plan(command: Sequence[str]) -> int:
    """Runs the command that plans; returns its exit status.  A signal to this process stops it."""
    with signals.listening() as stopped:
        planner = subprocess.Popen(command, env=environment())
        while planner.poll() is None:
            if stopped():
                planner.terminate()
                planner.wait()
                return AGAIN
            time.sleep(0.05)
    return AGAIN if stopped() else planner.returncode


def _run(options: argparse.Namespace) -> int:
    try:
        return run(options.workdir, options.parallel, options.tries)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def run(sweep: Path, parallel: int, tries: int) -> int:
    """Runs the missing jobs of a planned sweep; returns the exit status."""
    listed = jobs.read(sweep)
    with signals.listening() as stopped:
        for job in listed:
            directory = jobs.own_directory(sweep, job)
            if not job_states.held(directory):
                with contextlib.suppress(OSError):
                    attempts.reset(directory)  # a new launch gives new tries
        return Crew(sweep, listed, parallel, tries, environment()).work(stopped)


def environment() -> dict[str, str]:
    """The environment of this process, with a PYTHONPATH by which children import the same packages."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


if __name__ == "__main__":
    sys.exit(main())
