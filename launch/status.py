"""Every job of a sweep: its state, progress, time left, and why it failed.

    python -m launch.status SWEEP [--json]

Exit status: 0 when every job has finished, 1 if one gave up or all its runs diverged, 75 else.
"""

import argparse
import collections
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import jobs, states
from launch.exits import AGAIN, FAILED, FINISHED
from plasticity_jax.errors import LabError


def main(argv: Sequence[str] | None = None) -> int:
    """Print how a sweep stands; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.status", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="the --workdir of a sweep")
    options = parser.parse_args(argv)
    try:
        listed = jobs.read(options.sweep)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    found = {job: states.look(options.sweep, job) for job in listed}
    for job, state in found.items():
        print(f"{job.name}  {state.state}  {100 * state.done / max(state.planned, 1):.0f} %  {state.reason}")
    counts = collections.Counter(state.state for state in found.values())
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["finished"] == len(found):
        return FINISHED
    return FAILED if counts["failed"] + counts["gave up"] + counts["diverged"] else AGAIN


if __name__ == "__main__":
    sys.exit(main())
