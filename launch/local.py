"""Plan a sweep and run all that is missing of it on this machine, each job in a process of its own.

    python -m launch.local --config=FILE[:ARG] --workdir=SWEEP [--parallel=N] [--tries=3] [flags of launch.sweep]

Exit status: 0 all jobs have finished, 1 some failed, 75 stopped (the same command goes on).
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import launch
from launch import attempts, jobs, states
from launch.exits import FAILED, FINISHED

ROOT = Path(launch.__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, then run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.local", allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--tries", type=int, default=3)
    options, rest = parser.parse_known_args(argv)
    sweep = options.workdir.expanduser().absolute()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    planning = [sys.executable, "-m", "launch.sweep", f"--workdir={sweep}", *rest]
    done = subprocess.run(planning, env=environment, check=False)
    if done.returncode:
        return done.returncode
    waiting = [job for job in jobs.read(sweep) if states.look(sweep, job).state != "finished"]
    for job in waiting:
        attempts.reset(jobs.directory(sweep, job))
    running: dict[subprocess.Popen, jobs.Job] = {}
    failed = 0
    while waiting or running:
        while waiting and len(running) < options.parallel:
            job = waiting.pop(0)
            directory = jobs.directory(sweep, job)
            directory.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "launch.job", f"--workdir={sweep}", f"--job={job.name}"]
            command += [f"--tries={options.tries}"]
            with open(directory / "log.txt", "ab") as log:
                child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            running[child] = job
        for child in [child for child in running if child.poll() is not None]:
            job = running.pop(child)
            if child.returncode not in (FINISHED, FAILED):
                waiting.append(job)
            failed += child.returncode == FAILED
        time.sleep(0.1)
    return FAILED if failed else FINISHED


if __name__ == "__main__":
    sys.exit(main())
