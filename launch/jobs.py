"""The jobs of a sweep, as stored in its sweep.json, and the part of a study that each of them trains.

A job is some points of one pack of one study, for some seeds.  It is described by files alone, not by a command line:
`study(sweep, job)` is an ordinary study, trained in an ordinary working directory.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.config import names, spec
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.storage import workdir

VERSION = 1
AGAIN = "delete it and plan the sweep again: jobs that it contains again keep their results"
PLANNED = "planned.json"  # in the directory of a study: its seeds when it was planned first
PACK = "main"  # the pack of every job, so that a job's directory does not change when a study gets more packs


@dataclasses.dataclass(frozen=True)
class Job:
    """Part of a pack.

    name: of its directory, unique in the sweep.  study: key of its study in the sweep.
    pack, points: the pack of the study, and indices of its plans.  seeds: some of the study's seeds.
    runs: number of final runs (earlier stages are not counted).
    images: largest number of training images.  seconds: expected time, None if not measured.
    bytes: memory on the device, None if not measured.
    """

    name: str
    study: str
    pack: str
    points: tuple[int, ...]
    seeds: tuple[int, ...]
    runs: int
    images: int
    seconds: float | None
    bytes: int | None


def restrict(study: spec.Study, pack: str, points: Sequence[int], seeds: Sequence[int]) -> spec.Study:
    """The study of some points of one pack, for some seeds; its pack is called `PACK`.

    Raises:
      LabError: the study has no such pack, point or seed.
    """
    whole_pack = {candidate.name: candidate for candidate in study.packs}.get(pack)
    if whole_pack is None or not set(points) <= set(range(len(whole_pack.plans))) or not set(seeds) <= set(study.seeds):
        raise LabError(f"the study has no pack {names.shown(pack)} with all of the job's points and seeds")
    part = dataclasses.replace(whole_pack, name=PACK, plans=tuple(whole_pack.plans[i] for i in points))
    return dataclasses.replace(study, packs=(part,), seeds=tuple(seeds))


def read(sweep: Path) -> tuple[Job, ...]:
    """The jobs of a sweep.

    Raises:
      LabError: there is no sweep, or its sweep.json is damaged or unsafe.
    """
    path = Path(sweep) / "sweep.json"
    if not path.exists():
        raise LabError(f"{sweep} holds no sweep (no sweep.json); plan one with plasticity sweep")
    content = workdir.read_json(path, AGAIN)
    if not isinstance(content, dict) or content.get("version") != VERSION or not isinstance(content.get("jobs"), list):
        raise LabError(f"{path} is damaged, or of another version; {AGAIN}")
    jobs = tuple(_restore(value, f"{path}, job {i}") for i, value in enumerate(content["jobs"]))
    if len({job.name for job in jobs}) < len(jobs):
        raise LabError(f"{path} is damaged: two jobs of one name; {AGAIN}")
    return jobs


def write(sweep: Path, jobs: Sequence[Job]) -> None:
    """Replaces sweep.json."""
    workdir.write_json(Path(sweep) / "sweep.json", {"version": VERSION, "jobs": [vars(job) for job in jobs]})


def directory(sweep: Path, job: Job) -> Path:
    """The working directory of a job."""
    return Path(sweep) / job.study / "jobs" / job.name


def own_directory(sweep: Path, job: Job) -> Path:
    """The working directory of a job, checked before it is written to.

    Raises:
      LabError: a symbolic link in the path leads out of the sweep.
    """
    path = directory(sweep, job)
    if not path.resolve().is_relative_to(Path(sweep).resolve()):
        raise LabError(f"{path} leads out of the sweep by a link; delete the link or move its target in")
    return path


def study(sweep: Path, job: Job) -> spec.Study:
    """The study that a job trains.

    Raises:
      LabError: the study's config.json is missing, damaged or unsafe, or lacks the job's pack, points or seeds.
    """
    return restrict(whole(sweep, job.study), job.pack, job.points, job.seeds)


def whole(sweep: Path, key: str) -> spec.Study:
    """A complete study of the sweep.

    Raises:
      LabError: its config.json is missing, damaged or unsafe.
    """
    path = Path(sweep) / key / "config.json"
    try:
        return restore_study(workdir.read_json(path, ""), str(path))
    except LabError as error:
        text = str(error).rstrip("; ")
        raise LabError(f"{text}; delete {Path(sweep) / 'sweep.json'} and plan the sweep again") from error


def find(jobs: Sequence[Job], which: str) -> Job:
    """The job with a name, or else with an index in sweep.json.

    Raises:
      LabError: there is no such job.
    """
    named = {job.name: job for job in jobs}
    if which in named:
        return named[which]
    if which.isascii() and which.isdecimal() and int(which) < len(jobs):
        return jobs[int(which)]
    raise LabError(f"there is no job {names.shown(which)}; give a name in sweep.json, or an index below {len(jobs)}")


def _restore(value: Any, where: str) -> Job:
    keys = [field.name for field in dataclasses.fields(Job)]
    if not isinstance(value, dict) or sorted(value) != sorted(keys):
        raise LabError(f"{where}: a job has the keys {', '.join(keys)}")
    names.check(value["name"], f"{where}, name", commas=True)
    names.check(value["study"], f"{where}, study")
    names.check(value["pack"], f"{where}, pack", commas=True)
    for key in ("points", "seeds"):
        if not isinstance(value[key], list) or not value[key] or not all(map(_whole, value[key])):
            raise LabError(f"{where}, {key}: must be a list of integers")
    if not _whole(value["runs"]) or not _whole(value["images"]):
        raise LabError(f"{where}: runs and images must be integers")
    for key in ("seconds", "bytes"):
        if value[key] is not None and (isinstance(value[key], bool) or not isinstance(value[key], (int, float))):
            raise LabError(f"{where}, {key}: must be a number or null")
    return Job(**{**value, "points": tuple(value["points"]), "seeds": tuple(value["seeds"])})


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
