"""Plan a sweep and submit its missing jobs to SLURM as one array.

    python -m launch.slurm --config=FILE[:ARG] --workdir=SWEEP [--partition=NAME] [--time=4:00:00] [--gpus=N] [--cpus=N]
        [--mem=32G] [--nodes=N] [--tasks_per_node=N] [--array_parallel=N] [--account= --qos= --constraint= --exclude=]
        [--sbatch=KEY=VALUE ..] [--setup='module load cuda' ..] [--container=IMAGE] [--mount=PATH ..] [--grace=120]
        [--tries=3] [--dry_run] [flags of launch.sweep]

`--dry_run` prints the sbatch script (and the plan on stderr) and writes nothing; `launch/sbatch.py` explains it.  The
same command again submits the jobs that are then missing and not in the queue.
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.launch import attempts, job_states, jobs, sbatch, squeue, sweep
from plasticity_jax.launch.arguments import FINISHED
from plasticity_jax.launch.containers import Container
from plasticity_jax.launch.sweep import DRY_RUN, WORKDIR
from plasticity_jax.runner import commandline
from plasticity_jax.storage import workdir

PARTITION = flags.DEFINE_string("partition", "", "Partition, or several with commas; default: the cluster's.")
TIME = flags.DEFINE_string("time", "", "Time limit of a job, as 4:00:00; a longer job resumes in the next slice.")
GPUS = flags.DEFINE_string("gpus", "", "GPUs per node, as 2 or a100:2.")
CPUS = flags.DEFINE_string("cpus", "", "CPU cores per process.")
MEM = flags.DEFINE_string("mem", "", "Memory per node, as 32G.")
NODES = flags.DEFINE_integer("nodes", 1, "Nodes of a job, over which its runs are distributed.", 1)
TASKS_PER_NODE = flags.DEFINE_integer("tasks_per_node", 1, "Processes per node.", 1)
ARRAY_PARALLEL = flags.DEFINE_integer("array_parallel", 0, "Largest number of jobs at a time; 0 for any.", 0)
ACCOUNT = flags.DEFINE_string("account", "", "Account to charge.")
QOS = flags.DEFINE_string("qos", "", "Quality of service.")
CONSTRAINT = flags.DEFINE_string("constraint", "", "Features that a node must have.")
EXCLUDE = flags.DEFINE_string("exclude", "", "Nodes to exclude.")
SBATCH = flags.DEFINE_multi_string(
    "sbatch", [], "Another option of sbatch, as gres=gpu:2 or exclusive; may be repeated."
)
SETUP = flags.DEFINE_multi_string("setup", [], "Line of shell to run first, as 'module load cuda'; may be repeated.")
CONTAINER = flags.DEFINE_string("container", "", "Container image for Python: launch/containers.py.")
MOUNT = flags.DEFINE_multi_string("mount", [], "Further directory to mount in the container; may be repeated.")
GRACE = flags.DEFINE_integer("grace", 120, "Seconds before the time limit at which a job is told to save.", 1, 65535)
TRIES = flags.DEFINE_integer("tries", 3, "Failures of a job at the same place before it is given up.", 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or those of the process; returns the exit status."""
    return commandline.start(run, argv)


def run(argv: Sequence[str]) -> int:
    """Plans and submits; returns the exit status."""
    del argv
    logging.getLogger("jax").setLevel(logging.WARNING)  # otherwise it reports every accelerator that is missing
    try:
        if not WORKDIR.value:
            raise LabError("--workdir is missing")
        directory = paths.given(WORKDIR.value).absolute()
        sbatch.passed(wishes())  # reports errors before anything is compiled
        if not DRY_RUN.value and not squeue.there():
            raise LabError("no SLURM here (sbatch, squeue, scontrol); go to a login node, or use launch.local")
        with contextlib.redirect_stdout(sys.stderr if DRY_RUN.value else sys.stdout):
            planned = sweep.prepare()
        if DRY_RUN.value:
            show(directory, planned)
        else:
            with workdir.lock(directory / "slurm"):  # two launchers at once would submit every job twice
                submit(directory, planned)
    except LabError as error:
        commandline.leave(str(error))
    return FINISHED


def show(directory: Path, planned: Sequence[jobs.Job]) -> None:
    """Prints the script that `submit` would write."""
    queued = squeue.read(directory, len(planned)) if squeue.there() else {}
    positions = [i for i in missing(directory, planned) if i not in queued]
    if positions:
        limit = squeue.limit() if squeue.there() else squeue.LIMIT
        print(sbatch.write(directory, positions, limit, wishes(), sys.executable, Path.cwd()), end="")
    else:
        print("nothing to submit", file=sys.stderr)


def submit(directory: Path, planned: Sequence[jobs.Job]) -> None:
    """Writes the script, submits missing jobs that are not in the queue, and prints how to watch and cancel them."""
    queued, left = squeue.read(directory, len(planned)), missing(directory, planned)
    positions = [i for i in left if i not in queued]
    waiting = sum(i in queued for i in left)
    if waiting:
        print(f"{waiting} jobs are in the queue already")
    if not positions:
        print("nothing to submit" if waiting else "all jobs have finished")
        return
    limit = squeue.limit()
    text = sbatch.write(directory, positions, limit, wishes(), sys.executable, Path.cwd())
    (directory / "slurm" / "job.sh").write_text(text)
    for position in positions:
        attempts.reset(jobs.directory(directory, planned[position]))
    for offset, tasks in sbatch.chunks(positions, limit):
        command = sbatch.submission(directory, offset, tasks, ARRAY_PARALLEL.value)
        number = squeue.ask([command[0], "--parsable", *command[1:]]).strip().partition(";")[0]
        print(f"submitted {number}: {len(tasks)} jobs, tasks {sbatch.array(tasks)}")
        print(f"  cancel: scancel {number}    queue: squeue --jobs={number}")
        print(f"  output: {directory}/slurm/{number}_TASK.log")
    print(f"  watch:  plasticity status {directory}")


def missing(directory: Path, planned: Sequence[jobs.Job]) -> list[int]:
    """Positions of the jobs that have not finished."""
    return [i for i, job in enumerate(planned) if job_states.look(directory, job).state != "finished"]


def wishes() -> sbatch.Wishes:
    """The requests given by the flags."""
    resources = {
        "partition": PARTITION.value,
        "time": TIME.value,
        "nodes": str(NODES.value),
        "ntasks-per-node": str(TASKS_PER_NODE.value),
        "cpus-per-task": CPUS.value,
        "gpus-per-node": GPUS.value,
        "mem": MEM.value,
        "account": ACCOUNT.value,
        "qos": QOS.value,
        "constraint": CONSTRAINT.value,
        "exclude": EXCLUDE.value,
    }
    if MOUNT.value and not CONTAINER.value:
        raise LabError(f"--mount={MOUNT.value[0]}: mounts need a container; give --container")
    gpus = bool(GPUS.value) or any("gpu" in option for option in SBATCH.value)
    container = Container(CONTAINER.value, tuple(MOUNT.value), gpus) if CONTAINER.value else None
    numbers = ARRAY_PARALLEL.value, GRACE.value, TRIES.value
    return sbatch.Wishes(resources, *numbers, tuple(SETUP.value), tuple(SBATCH.value), container)


if __name__ == "__main__":
    sys.exit(main())
