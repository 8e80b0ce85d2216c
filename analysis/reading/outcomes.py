"""The status of runs, from files: also for studies in progress or of earlier versions.

`failed`     the run diverged: its last loss is not finite, or the result says so
`finished`   its stage has ended
`running`    it has not ended; possibly no process is training it
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from plasticity_jax import strict_json
from plasticity_jax.analysis.reading import tables

FAILED, FINISHED, RUNNING = "failed", "finished", "running"
TABLE = "metrics.jsonl"
SCORES = ("test_loss", "test_accuracy", "train_loss", "train_accuracy")


def rows(directory: Path, pack: str, stage: str) -> tables.Part:
    """The rows of a stage of a working directory, each with the `status` of its run.

    Raises:
      LabError: the table is damaged.
    """
    folder, result = directory / pack / stage, _result(directory)
    ended = bool(result) or any(path.name.isdecimal() for path in folder.glob("end/*"))
    table, points = tables.named(tables.read(folder / TABLE), status=FINISHED if ended else RUNNING)
    lost = [run for of, run in failed(result.get("runs")) if of == pack]
    return table.assign(status=table.status.mask(table.run.isin(lost), FAILED)), points


def told(table: pd.DataFrame, runs: Any) -> pd.Series:
    """The status of each row of a table without one, from the `runs` of the study's result (None without a result)."""
    lost = failed(runs)
    pairs = zip(table.pack, table.run, strict=True)
    return pd.Series([FAILED if pair in lost else RUNNING if runs is None else FINISHED for pair in pairs], table.index)


def diverged(table: pd.DataFrame, run: list[str]) -> pd.Series:
    """Whether the run of each row (identified by the columns `run`) has no finite loss at its last step in a stage."""
    scores = table[table.metric.isin(SCORES)]
    scores = scores[scores.step == scores.groupby([*run, "stage"]).step.transform("max")]
    lost = pd.MultiIndex.from_frame(scores[scores.value.isna()][run])
    return pd.Series(pd.MultiIndex.from_frame(table[run]).isin(lost), table.index)


def failed(runs: Any) -> set[tuple[str, str]]:
    """(pack, run), as in tables, of failed runs among the `runs` of a result, which is not trusted."""
    known = [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    lost = [(str(run.get("pack")), str(run.get("run"))) for run in known if run.get("status") == FAILED]
    return {(pack, run.removeprefix(f"{pack}/")) for pack, run in lost}


def are_runs(value: Any) -> bool:
    """Whether a value from a file is a valid list of runs of a result."""
    return isinstance(value, list) and all(
        isinstance(run, dict) and all(isinstance(run.get(key), str) for key in ("pack", "run", "status"))
        for run in value
    )


def can_be_combined(value: Any) -> bool:
    """Whether JSON of a file has all that `storage.results.combine` needs."""
    return (
        isinstance(value, dict)
        and are_runs(value.get("runs"))
        and all(map(_can_be_compared, value["runs"]))
        and _is_number(value.get("images"))
        and _are_numbers(value.get("seconds"))
        and _are_numbers(value.get("train_seconds", {}))
    )


def _can_be_compared(run: Mapping[str, Any]) -> bool:
    score = run.get("test_accuracy")
    return (
        isinstance(run.get("branch"), str)
        and isinstance(run.get("seed"), int)
        and isinstance(run.get("hparams"), dict)
        and (score is None or _is_number(score))
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _result(directory: Path) -> dict[str, Any]:
    """`result.json`; {} if it is missing or damaged, since the same command writes it again."""
    try:
        content = strict_json.loads((directory / "result.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
