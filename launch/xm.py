"""Plan a sweep and run its missing jobs through XManager, each job a work unit.

    xmanager launch launch/xm.py -- --config=FILE[:ARG] --workdir=SWEEP [--parallel=N] [--tries=3]
        [flags of launch.sweep]

With `--executor=local` a work unit is a prebuilt binary: SWEEP/xm/job.sh, a script that runs `launch.job`.  XManager
starts all work units at once and ends them all when one fails, so this launcher submits --parallel at a time, and the
script always exits with 0.  The exit status of the launcher follows from the files of the jobs.

`--executor=vertex --workdir=/gcs/BUCKET/SWEEP --accelerator=A100` builds a container of the project and runs the jobs
on Vertex AI, where Cloud Storage is mounted at /gcs (mount it here too: `gcsfuse BUCKET /gcs/BUCKET`).  It follows
XManager's documentation and is UNTESTED: it needs docker and a Google Cloud project.

Exit status: 0 all jobs finished, 1 some did not.
"""

import asyncio
import logging
import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from xmanager import xm, xm_local

from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.launch import attempts, binary, job_states, jobs, sweep
from plasticity_jax.launch.arguments import FAILED, FINISHED
from plasticity_jax.launch.sweep import WORKDIR
from plasticity_jax.runner import commandline, output

ROOT = Path(__file__).resolve().parents[1]

EXECUTOR = flags.DEFINE_enum("executor", "local", ["local", "vertex"], "Where the jobs run.")
PARALLEL = flags.DEFINE_integer("parallel", 1, "Largest number of jobs at a time.", 1)
TRIES = flags.DEFINE_integer("tries", 3, "Failures of a job at the same place before it is given up.", 1)
ACCELERATOR = flags.DEFINE_string("accelerator", "", "Accelerator on Vertex AI: A100, V100, T4; empty for CPU.")


def main(argv: Sequence[str]) -> int:
    """Plans and runs; returns the exit status."""
    del argv
    output.outlive_readers()
    try:
        if not WORKDIR.value:
            raise LabError("--workdir is missing")
        directory = paths.given(WORKDIR.value).absolute()
        # A child process plans, since planning uses jax, and this process must not hold the memory of a GPU.
        planning = multiprocessing.get_context("fork").Process(target=plan)
        planning.start()
        planning.join()
        if planning.exitcode:
            return FAILED
        planned = jobs.read(directory)
        left = missing(directory, planned)
        for job in left:
            attempts.reset(jobs.directory(directory, job))
        asyncio.run(run(directory, left))
    except LabError as error:
        commandline.leave(str(error))
    unfinished = missing(directory, planned)
    for job in unfinished:
        state = job_states.look(directory, job)
        print(f"{job.name}: {state.state} {state.reason}".rstrip(), file=sys.stderr)
    return FAILED if unfinished else FINISHED


def plan() -> None:
    """Plans the sweep; an error ends the process with one line."""
    logging.getLogger("jax").setLevel(logging.WARNING)  # otherwise it reports every accelerator that is missing
    try:
        sweep.prepare()
    except LabError as error:
        commandline.leave(str(error))


def missing(directory: Path, planned: Sequence[jobs.Job]) -> list[jobs.Job]:
    """The jobs that have not finished."""
    return [job for job in planned if job_states.look(directory, job).state != "finished"]


async def run(directory: Path, left: Sequence[jobs.Job]) -> None:
    """Runs jobs as work units of one experiment, PARALLEL at a time."""
    room = asyncio.Semaphore(PARALLEL.value)
    async with xm_local.create_experiment(experiment_title=directory.name) as experiment:
        spec, executor = vertex(directory) if EXECUTOR.value == "vertex" else local(directory)
        [executable] = experiment.package([xm.Packageable(spec, executor.Spec())])

        async def one(job: jobs.Job) -> None:
            async with room:
                unit = await experiment.add(xm.Job(executable, executor, args={"job": job.name}))
                try:
                    await unit.wait_until_complete()
                except xm.ExperimentUnitError as error:
                    print(f"{job.name}: {error}", file=sys.stderr)

        await asyncio.gather(*map(one, left))


def local(directory: Path) -> tuple[xm.ExecutableSpec, xm.Executor]:
    """A prebuilt binary on this machine."""
    path = directory / "xm" / "job.sh"
    path.parent.mkdir(exist_ok=True)
    path.write_text(binary.script(directory, TRIES.value, sys.executable, Path.cwd()))
    path.chmod(0o755)
    return xm.Binary(path=str(path)), xm_local.Local(experimental_stream_output=False)


def vertex(directory: Path) -> tuple[xm.ExecutableSpec, xm.Executor]:
    """A container of this project on Vertex AI; untested."""
    if not str(directory).startswith("/gcs/"):
        raise LabError("--executor=vertex: give a --workdir below /gcs/BUCKET, which is visible to the jobs")
    where = [f"--workdir={directory}", f"--tries={TRIES.value}"]
    command = shlex.join(["python", "-m", "plasticity_jax.launch.job", *where])
    extra = "[cuda12]" if ACCELERATOR.value else ""
    container = xm.PythonContainer(
        path=str(ROOT),
        base_image="python:3.11",
        docker_instructions=[
            f"COPY {ROOT.name}/ /lab",
            "WORKDIR /lab",
            f"RUN python -m pip install -c constraints.txt '.{extra}'",
        ],
        # With status 75 the job saved or has tries left, and is started again.
        entrypoint=xm.CommandList([binary.line(command)]),
    )
    resources = {ACCELERATOR.value: 1} if ACCELERATOR.value else {"cpu": 4, "ram": 16 * xm.GiB}
    requirements = xm.JobRequirements(**resources)
    return container, xm_local.Vertex(requirements=requirements)
