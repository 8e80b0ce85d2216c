"""Reads a sweep: combines its jobs as if `main` had trained each study.

Runs have the names of the whole study, even if a job with a part of the grid uses other names.  A run that several jobs
trained, such as a pretraining shared by points of the grid, counts once.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plasticity_jax.analysis.reading import outcomes, tables
from plasticity_jax.config import spec
from plasticity_jax.config.plan import Run, by_past, unfold
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs
from plasticity_jax.launch.jobs import Job
from plasticity_jax.storage import results, workdir


def is_sweep(directory: Path) -> bool:
    """Whether `launch.sweep` planned this directory."""
    return (directory / "sweep.json").exists()


def is_study(directory: Path) -> bool:
    """Whether this is the directory of a study in a sweep."""
    return is_sweep(directory.absolute().parent) and not (directory / "result.json").exists()


def studies(sweep: Path) -> list[Path]:
    """The directories of the studies of a sweep, in the order of their jobs."""
    return [sweep / key for key in dict.fromkeys(job.study for job in jobs.read(sweep))]


def begun(sweep: Path) -> list[Path]:
    """The studies of a sweep that have measurements.

    Raises:
      LabError: there is none.
    """
    measured = {
        job.study
        for job in jobs.read(sweep)
        if any((jobs.directory(sweep, job) / jobs.PACK).glob(f"*/{outcomes.TABLE}"))
    }
    if not measured:
        raise LabError(f"no study of {sweep} has measurements yet; plasticity local --workdir={sweep} runs them")
    return [study for study in studies(sweep) if study.name in measured]


def rows(directory: Path) -> Iterator[tables.Part]:
    """All measurements of a study so far, run by run, each row with its `pack`.

    Raises:
      LabError: the sweep or a table is damaged.
    """
    study = jobs.whole(directory.absolute().parent, directory.absolute().name)
    longest: dict[tuple[str, str, str], tables.Part] = {}
    for job, names in _jobs(directory, study):
        at = jobs.directory(directory.absolute().parent, job)
        for path in sorted((at / jobs.PACK).glob(f"*/{outcomes.TABLE}")):
            table, points = outcomes.rows(at, jobs.PACK, path.parent.name)
            for (stage, run), measured in table.groupby(["stage", "run"], sort=False):
                renamed = names.get((stage, run))
                key = (job.pack, stage, renamed.id if renamed else run)
                if key not in longest or len(measured) > len(longest[key][0]):
                    part = measured, points
                    longest[key] = tables.renamed(part, renamed.id, dict(renamed.hparams)) if renamed else part
    for (pack, _, _), part in sorted(longest.items(), key=lambda item: item[0][:2]):
        yield tables.named(part, pack=pack)


def result(directory: Path) -> dict[str, Any]:
    """The combined result of a study, as its `result.json` would be.

    Raises:
      LabError: jobs are missing.
    """
    done, count = progress(directory)
    if done < count:
        raise LabError(
            f"{count - done} of {count} jobs of {directory} have not finished; see plasticity status "
            f"{directory.absolute().parent}"
        )
    sweep = directory.absolute().parent
    study = jobs.whole(sweep, directory.absolute().name)
    several, parts = len(study.packs) > 1, []
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for job, names in _jobs(directory, study):
        path = jobs.directory(sweep, job) / "result.json"
        part = _read(path)
        if not outcomes.can_be_combined(part):
            raise LabError(f"{path} is damaged: plasticity local --workdir={sweep} writes it again")
        parts.append({**part, "runs": []})
        for run in part["runs"]:
            renamed = names.get((None, run["run"]))
            name = renamed.id if renamed else run["run"]
            named = {"run": f"{job.pack}/{name}" if several else name, "pack": job.pack}
            if (job.pack, name) not in runs:
                runs[job.pack, name] = {**run, **named, **({"hparams": dict(renamed.hparams)} if renamed else {})}
    order = [(pack.name, run.id) for pack in study.packs for run in _finals(pack, study)]
    return results.combine(
        [*parts, {"runs": [runs[key] for key in order if key in runs], "images": 0, "seconds": {}}],
        study.dataset,
        study.control,
    )


def progress(directory: Path) -> tuple[int, int]:
    """(number of jobs of a study with a result, number of all)."""
    sweep, listed = directory.absolute().parent, _own(directory)
    return sum((jobs.directory(sweep, job) / "result.json").exists() for job in listed), len(listed)


def environment(directory: Path) -> dict[str, Any]:
    """The environment of a study: that of its first job, and the resolved `auto` choices of each pack.

    Raises:
      LabError: no job has begun.
    """
    sweep, choices, first = directory.absolute().parent, dict[str, Any](), dict[str, Any]()
    for job in _own(directory):
        path = jobs.directory(sweep, job) / "environment.json"
        if path.exists():
            facts = _read(path)
            first = first or facts
            choices.setdefault(job.pack, facts.get("choices", {}).get(jobs.PACK))
    if not first:
        raise LabError(f"no job of {directory} has begun; plasticity local --workdir={sweep} runs them")
    return {**first, "choices": choices}


def _own(directory: Path) -> list[Job]:
    key = directory.absolute().name
    return [job for job in jobs.read(directory.absolute().parent) if job.study == key]


def _jobs(directory: Path, study: spec.Study) -> Iterator[tuple[Job, Mapping[tuple[str | None, str], Run]]]:
    """The jobs of a study, and a mapping from their names of runs to the study's names where these may differ.

    Its keys are (stage, run in the job), and (None, run) for final runs.
    """
    packs = {pack.name: pack for pack in study.packs}

    @functools.cache
    def whole(name: str) -> dict[Any, Run]:
        return by_past(unfold(packs[name], study.seeds))

    for job in _own(directory):
        part = jobs.restrict(study, job.pack, job.points, job.seeds)
        names: dict[tuple[str | None, str], Run] = {}
        if len(job.points) < len(packs[job.pack].plans):
            for past, run in by_past(unfold(part.packs[0], job.seeds)).items():
                planned = whole(job.pack)[past]
                names[run.stage.name, run.id] = planned
                if run.final:
                    names[None, run.id] = planned
        yield job, names


def _finals(pack: spec.Pack, study: spec.Study) -> list[Run]:
    """The final runs, in the order of the plans."""
    runs = [run for group in unfold(pack, study.seeds) for run in group.runs if run.final]
    return sorted(runs, key=lambda run: run.index)


def _read(path: Path) -> dict[str, Any]:
    content = workdir.read_json(path)
    if not isinstance(content, dict):
        raise LabError(f"{path} is damaged: no JSON object")
    return content
