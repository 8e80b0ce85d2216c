"""Takes over a study that `main` began: its packs become the first jobs of a sweep, which can get more seeds.

What it trained is copied into the directories of these jobs.  They continue there, and if it was finished they only
write their results.
"""

import contextlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from plasticity_jax.config import parse, spec
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs, planner, prices
from plasticity_jax.storage import environment, workdir

FOUND = "name the --workdir of a study that was trained by main"


def plan(directory: Path, keys: Collection[str]) -> tuple[tuple[jobs.Job, ...], dict[str, spec.Study]]:
    """One job for each pack of the study in a directory, and the study by its key in the sweep.

    Args:
      directory: the working directory of `main`.
      keys: those of the sweep's studies; there must be one.

    Raises:
      LabError: the directory holds no study, or the sweep has several.
    """
    if len(keys) > 1:
        raise LabError(f"--begun={directory}: the sweep has {len(keys)} studies; plan the one that was begun alone")
    path = directory / "config.json"
    if not path.exists():
        raise LabError(f"--begun={directory}: it holds no study (no config.json); {FOUND}")
    studies = dict.fromkeys(keys, restore_study(workdir.read_json(path, FOUND), str(path)))
    return planner.plan(studies, (), prices.Market(studies).unmeasured, planner.Budget()), studies


def copy(directory: Path, sweep: Path, listed: Sequence[jobs.Job], studies: Mapping[str, spec.Study]) -> None:
    """Copies what was trained in a directory to those of the jobs planned by `plan`, except those that exist.

    Raises:
      LabError: a process trains in the directory, or it cannot be copied.
    """
    with workdir.lock(directory):
        facts = environment.read(directory)
        for job in listed:
            target = jobs.own_directory(sweep, job)
            if target.exists():
                continue
            part = target.with_name(f"{target.name}.part")
            try:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(part)  # of a process that was killed
                shutil.copytree(directory / job.pack, part / jobs.PACK)
                if len(listed) == 1 and (directory / "tensorboard").is_dir():
                    shutil.copytree(directory / "tensorboard", part / "tensorboard")
                study = jobs.restrict(studies[job.study], job.pack, job.points, job.seeds)
                workdir.write_json(part / "config.json", parse.describe(study))
                choices = {jobs.PACK: facts["choices"][job.pack]}
                workdir.write_json(part / "environment.json", facts | {"choices": choices})
                part.rename(target)
            except OSError as error:  # shutil.Error is one
                raise LabError(f"cannot copy {directory} to {target}: {error.strerror or error}") from error
