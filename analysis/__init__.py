"""Tables and figures from working directories, finished or in progress.  Reads files only: no jax, no network.

from plasticity_jax import analysis
frame = analysis.load("runs/demo")
frame[(frame.metric == "test_accuracy") & (frame.status != "failed")].groupby(["branch", "epoch"]).value.mean()

study = analysis.read("runs/demo")     # its config, result and table
study.plot()                           # its figures
print(study.claims())                  # its claims, each with an effect, an interval and a verdict
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity_jax import strict_json
from plasticity_jax.analysis.reading import outcomes, sweeps, tables
from plasticity_jax.config import columns, plan
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import ConfigError, LabError

TABLE = outcomes.TABLE
COMPACT = "metrics.parquet"  # the table of a study in one file, written by `analysis.collect`
KEYS, MEASURED = list(columns.KEYS), list(columns.MEASURED)

Directory = str | os.PathLike[str]


def __getattr__(name: str) -> Any:
    """`read`, imported on first use, since `studies` imports this module."""
    if name == "read":
        from plasticity_jax.analysis.studies import read

        return read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def distinct(directories: Iterable[Directory]) -> list[Path]:
    """The directories without duplicates, which may be given under different names."""
    given: dict[Path, Path] = {}
    for directory in map(Path, directories):
        given.setdefault(directory.resolve(), directory)
    return list(given.values())


def load(*directories: Directory) -> pd.DataFrame:
    """All measurements in one or more working directories as a long table, one row per run, step and metric.

    Running studies can be read too, as can sweeps and single studies of a sweep.

    Args:
      directories: working directories, each `DIR/<pack>/<stage>/metrics.jsonl`, compact ones, `DIR/metrics.parquet`,
        or those of sweeps or of their studies.
    Returns:
      Columns pack, run, seed, branch, one per hyper-parameter of a grid (empty where a run does not have it), stage,
      status, epoch and step (both since the stage began), metric, value (accuracies in percent; NaN what was not
      finite).  Of a sweep a column `study` comes first, and before it a column `directory` if there are several
      directories.  Status is `failed` for runs that diverged, else `finished` or `running` (`reading.outcomes`).
    Raises:
      LabError: a directory has no measurements, or a damaged table.
    """
    given = distinct(directories)
    frames = [_judged(_table(directory), directory) for directory in given]
    if len(frames) > 1:
        frames = [frame.assign(directory=str(one)) for frame, one in zip(frames, given, strict=True)]
    frame = pd.concat(frames, ignore_index=True)
    first = [column for column in ("directory", "study") if column in frame]
    hparams = [column for column in frame if column not in {*first, *KEYS, *MEASURED}]
    return frame[[*first, *KEYS, *hparams, *MEASURED]]


def _table(directory: Path) -> pd.DataFrame:
    """The measurements below one directory."""
    if (directory / COMPACT).exists():
        try:
            return pd.read_parquet(directory / COMPACT)
        except (OSError, ValueError) as e:
            raise LabError(f"cannot read {directory / COMPACT} ({e}): export it again from its --workdir") from e
    if sweeps.is_sweep(directory):
        parts = [
            tables.named(part, study=study.name) for study in sweeps.studies(directory) for part in sweeps.rows(study)
        ]
    elif sweeps.is_study(directory):
        parts = list(sweeps.rows(directory))
    else:
        parts = list(_rows(directory))
    table = tables.joined(parts)
    if table.empty:
        raise LabError(f"{directory} holds no measurements ({TABLE}); give the --workdir of a study")
    return table


def _rows(directory: Path) -> Iterator[tables.Part]:
    """The rows of a working directory, with the pack and the status of each run."""
    for path in sorted(directory.rglob(TABLE)):
        pack, stage = path.parent.parent.relative_to(directory).as_posix(), path.parent.name
        yield tables.named(outcomes.rows(directory, pack, stage), pack=pack)


def _judged(table: pd.DataFrame, directory: Path) -> pd.DataFrame:
    """The table with finite numbers (or NaN) as values, and the status of each run."""
    value = pd.to_numeric(table.value, errors="coerce").astype(float)
    table = table.assign(value=value.where(np.isfinite(value)))
    if "status" not in table:  # exported by an earlier version
        runs = load_result(directory).get("runs") if has_result(directory) else None
        table = table.assign(status=outcomes.told(table, runs))
    run = [*(["study"] if "study" in table else []), "pack", "run"]
    return table.assign(status=table.status.mask(outcomes.diverged(table, run), outcomes.FAILED))


def has_result(directory: Directory) -> bool:
    """Whether a study, alone or in a sweep, has finished."""
    directory = Path(directory)
    if sweeps.is_study(directory):
        done, count = sweeps.progress(directory)
        return done == count
    return (directory / "result.json").exists()


def load_result(directory: Directory) -> dict[str, Any]:
    """The result of a finished study: `result.json`, or the combined results of its jobs in a sweep.

    Raises:
      LabError: there is none, or it is broken.
    """
    _refuse_sweep(Path(directory))
    if sweeps.is_study(Path(directory)):
        return sweeps.result(Path(directory))
    path = Path(directory) / "result.json"
    result = _json(path, "the study has not finished; run its command again to go on")
    if not outcomes.are_runs(result.get("runs")):
        raise LabError(f"{path} is damaged (no list of runs): delete it and run the study's command again")
    return result


def load_config(directory: Directory) -> dict[str, Any]:
    """The resolved config of a study with all defaults: `config.json`, in the format of the version that wrote it.

    Raises:
      LabError: there is none, or it is broken or no study.
    """
    _refuse_sweep(Path(directory))
    path = Path(directory) / "config.json"
    config = _json(path, "give the --workdir of a study")
    try:
        study = restore_study(config, str(path))
        for pack in study.packs:
            plan.unfold(pack, study.seeds[:1])
    except (ConfigError, RecursionError) as e:
        raise LabError(f"{path} is no study ({str(e).removeprefix(str(path)).lstrip('.: ')}): restore it") from e
    return config


def load_environment(directory: Directory) -> dict[str, Any]:
    """The environment of the study: versions, commit, devices, hash of the data: `environment.json`.

    Raises:
      LabError: there is none, or it is broken.
    """
    _refuse_sweep(Path(directory))
    if sweeps.is_study(Path(directory)):
        return sweeps.environment(Path(directory))
    return _json(Path(directory) / "environment.json", "give the --workdir of a study")


def _refuse_sweep(directory: Path) -> None:
    if sweeps.is_sweep(directory):
        found = ", ".join(str(study) for study in sweeps.studies(directory)[:5])
        raise LabError(f"{directory} is a sweep; give one of its studies: {found}")


def _json(path: Path, advice: str) -> dict[str, Any]:
    again = "delete it and run the study's command again"
    try:
        content = strict_json.loads(path.read_bytes())
    except OSError as e:
        raise LabError(f"cannot read {path} ({e.strerror}): {advice}") from e
    except (ValueError, RecursionError) as e:
        raise LabError(f"{path} is no JSON ({e}): {again}") from e
    if not isinstance(content, dict):
        raise LabError(f"{path} is damaged (no JSON object): {again}")
    return content
