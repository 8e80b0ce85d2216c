"""Plan a sweep: cut its studies into jobs, and print them.

    python -m launch.sweep --config=FILE[:ARG] --workdir=SWEEP [--config.KEY=VALUE] [--dry_run]

Run again, it changes nothing; with more seeds or grid points, the jobs that are there stay and new ones are added.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app

from launch import flags
from launch.exits import FINISHED
from plasticity_jax import commandline
from plasticity_jax.errors import LabError


def main(argv: Sequence[str]) -> int:
    """Plan the sweep that the flags ask for; returns the exit status."""
    del argv
    try:
        from launch import plan  # imports jax: seconds that a misspelt flag need not cost

        found = plan.studies(flags.CONFIG.value)
        planned = plan.plan(found)
        for job in planned:
            print(f"{job.name}  {job.runs} runs")
        if not flags.DRY_RUN.value:
            plan.store(Path(flags.WORKDIR.value).expanduser().absolute(), found, planned)
    except LabError as error:
        commandline.leave(str(error))
    return FINISHED


if __name__ == "__main__":
    app.run(main, flags_parser=commandline.parse)
