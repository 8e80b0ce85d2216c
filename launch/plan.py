"""From a sweep config to jobs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from launch import jobs
from plasticity_jax import config as configs
from plasticity_jax import names, stages, workdir
from plasticity_jax.errors import ConfigError
from plasticity_jax.legs import unfold


def studies(config: ConfigDict) -> dict[str, stages.Study]:
    """The studies of a sweep config by their keys; a lone study goes by its name.

    Raises:
      ConfigError: a study that is none, or a key that cannot name a directory.
    """
    if "studies" not in config:
        study = configs.parse(config)
        return {names.safe(study.name or "study"): study}
    if list(config) != ["studies"] or not config.studies:
        raise ConfigError("config.studies: a sweep has this key alone, a group of studies by name")
    found = {}
    for key, each in config.studies.items():
        names.check(key, f"config.studies.{key}")
        try:
            found[key] = configs.parse(each)
        except ConfigError as error:
            raise ConfigError(f"study {key}: {error}") from error
    return found


def plan(found: Mapping[str, stages.Study], **budget: Any) -> tuple[jobs.Job, ...]:
    """The jobs of studies."""
    planned = []
    for key, study in found.items():
        for pack in study.packs:
            points = tuple(range(len(pack.plans)))
            runs = sum(run.final for leg in unfold(pack, study.seeds) for run in leg.runs)
            name = pack.name if len(found) == 1 else f"{key},{pack.name}"
            planned.append(jobs.Job(name, key, pack.name, points, study.seeds, runs, 0, None, None))
    return tuple(planned)


def store(sweep: Path, found: Mapping[str, stages.Study], planned: tuple[jobs.Job, ...]) -> None:
    """Write the plan of a sweep."""
    for key, study in found.items():
        workdir.write_json(sweep / key / "config.json", configs.describe(study))
    jobs.write(sweep, planned)
