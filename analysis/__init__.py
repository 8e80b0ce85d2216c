"""From working directories to tables and pictures.  Reads files only: no jax, no network, finished or not.

import analysis
frame = analysis.load("runs/demo")
frame[frame.metric == "test_accuracy"].groupby(["branch", "epoch"]).value.mean()
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from plasticity_jax import records
from plasticity_jax.errors import LabError

TABLE = "metrics.jsonl"
KEYS = ["pack", "run", "seed", "branch"]
MEASURED = ["stage", "epoch", "step", "metric", "value"]

Directory = str | os.PathLike[str]


def load(*directories: Directory) -> pd.DataFrame:
    """All measurements below one or more working directories as a long table, one row per run, step and metric.

    A study that is still running can be read too.

    Args:
      directories: working directories, each `DIR/<pack>/<stage>/metrics.jsonl`.
    Returns:
      Columns pack, run, seed, branch, one per hyper-parameter of a grid (empty where a run does not have it), stage,
      epoch and step (both since the stage began), metric, value (accuracies in percent).  Behind several directories
      a column `directory` comes first.
    Raises:
      LabError: a directory without measurements, or a broken table.
    """
    rows: list[records.Row] = []
    hparams: dict[str, None] = {}
    for directory in map(Path, directories):
        before = len(rows)
        for path in sorted(directory.rglob(TABLE)):
            pack = path.parent.parent.relative_to(directory).as_posix()
            for row in records.read(path):
                point = row.pop("hparams")
                hparams |= dict.fromkeys(point)
                rows.append({"directory": str(directory), "pack": pack, **row, **point})
        if len(rows) == before:
            raise LabError(f"{directory} holds no measurements ({TABLE}); give the --workdir of a study")
    several = ["directory"] if len(directories) > 1 else []
    return pd.DataFrame(rows, columns=[*several, *KEYS, *hparams, *MEASURED])


def load_result(directory: Directory) -> dict[str, Any]:
    """What a finished study found: `result.json`.

    Raises:
      LabError: there is none, or it is broken.
    """
    return _json(Path(directory) / "result.json", "the study has not finished; run its command again to go on")


def load_config(directory: Directory) -> dict[str, Any]:
    """The study as it was resolved from its config, every default filled in: `config.json`.

    Raises:
      LabError: there is none, or it is broken.
    """
    return _json(Path(directory) / "config.json", "give the --workdir of a study")


def _json(path: Path, advice: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except OSError as e:
        raise LabError(f"cannot read {path} ({e.strerror}): {advice}") from e
    except ValueError as e:
        raise LabError(f"{path} is no JSON ({e}): delete it and run the study's command again") from e
