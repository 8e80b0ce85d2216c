"""Plan a sweep and run all that is missing of it on this machine, each job in a process of its own.

    python -m launch.local --config=FILE[:ARG] --workdir=SWEEP [--parallel=N] [--tries=3] [flags of launch.sweep]
    python -m launch.local --workdir=SWEEP                      what is planned already

N jobs at a time share the GPUs or the CPU cores.  A job that another launcher is at is waited for.  SIGINT, SIGTERM
or SIGHUP (of a terminal that is closed) lets the jobs save and stop.

Exit status: 0 all jobs have finished, 1 some failed, 75 stopped (the same command goes on).
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
    """Plan, then run; returns the exit status."""
    output.outlive_readers()
    parser = Parser("launch.local", __doc__.splitlines()[0])
    parser.add_argument("--workdir", type=directory, help="directory of the sweep; the same one again goes on with it")
    parser.add_argument("--parallel", type=positive, default=1, help="jobs at a time")
    parser.add_argument("--tries", type=positive, default=3, help="failures at one place before a job gives up")
    parser.add_argument("--dry_run", action="store_true", help="show the jobs, and run nothing")
    options, rest = parser.parse_known_args(argv)
    planning = options.dry_run or any(word.lstrip("-").startswith(("config", "flagfile")) for word in rest)
    if options.workdir and not planning:
        if rest:
            parser.error(f"{rest[0]}: that is for planning, which needs --config; without, all that is planned runs")
        return _run(options)
    # Planned by a child, for it computes with jax: this process must not hold the memory of a GPU.
    command = [sys.executable, "-m", "plasticity_jax.launch.sweep", *rest, *["--dry_run"] * options.dry_run]
    command += [f"--workdir={options.workdir}"] if options.workdir else []
    planned = _plan(command)
    return planned if planned or options.dry_run else _run(options)


def _plan(command: Sequence[str]) -> int:
    """The exit status of the command that plans; it is stopped if this process is."""
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
    """Run what is missing of a sweep that is planned; returns the exit status."""
    listed = jobs.read(sweep)
    with signals.listening() as stopped:
        for job in listed:
            directory = jobs.own_directory(sweep, job)
            if not job_states.held(directory):
                with contextlib.suppress(OSError):
                    attempts.reset(directory)  # whoever launches again gives new tries
        return Crew(sweep, listed, parallel, tries, environment()).work(stopped)


def environment() -> dict[str, str]:
    """The environment of this process, in which children find these very packages."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


if __name__ == "__main__":
    sys.exit(main())
