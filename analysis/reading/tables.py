"""Reads a metrics table, `metrics.jsonl`, as a pandas table, in a tenth of the time and memory of a dict per row.

A line is `RUN, "stage": AT, "value": NUMBER}`.  Its first two parts have few distinct values, and each is parsed once.
There is no cached copy that could be outdated, and a file that is being written can be read.  If a file has another
form, `metrics.read` reads it row by row instead, and names a damaged line.

A `Part` is (rows, points): the hyper-parameters of a row are those that `points` has at the row's `point`.
"""

import array
import contextlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError
from plasticity_jax.storage import metrics

Point = dict[str, Any]
Part = tuple[pd.DataFrame, list[Point]]

POINT = "point"
OF_RUN, AT, VALUE = ("run", "seed", "branch", "hparams"), ("stage", "epoch", "step", "metric"), "value"
WORDS, NUMBERS = ("run", "branch", "stage", "metric"), ("seed", "epoch", "step")
STAGE_KEY, VALUE_KEY = b', "stage": ', b', "value": '
LINES = 20_000  # lines in memory at once


def read(path: Path) -> Part:
    """The rows of a file, null as NaN; a torn last line is left out.

    Raises:
      LabError: the file cannot be read, or a line is not a row.
    """
    try:
        with open(path, "rb") as file:
            return _by_parts(file)
    except OSError as e:
        raise LabError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, OverflowError, RecursionError):
        return _by_row(path)


def joined(parts: Iterable[Part]) -> pd.DataFrame:
    """All rows as one table, with a column for each hyper-parameter, empty where a run does not have it."""
    rows: list[pd.DataFrame] = []
    points: list[Point] = []
    for part, of_part in (
        part for part in parts if len(part[0])
    ):  # an empty part would change the dtypes of the others
        rows.append(part.assign(**{POINT: part[POINT] + len(points)}))
        points += of_part
    if not rows:
        return pd.DataFrame()
    table = pd.concat(rows, ignore_index=True)
    names = dict.fromkeys(name for point in points for name in point)
    columns = pd.DataFrame(points, columns=list(names)).take(table.pop(POINT)).set_axis(table.index)
    return pd.concat([table, columns], axis="columns")


def named(part: Part, **words: str) -> Part:
    """The table with further columns, each with one constant value."""
    rows, points = part
    return rows.assign(
        **{name: pd.Series(word, rows.index, dtype=rows.run.dtype) for name, word in words.items()}
    ), points


def renamed(part: Part, run: str, point: Point) -> Part:
    """The rows of one run under another name, with the hyper-parameters of that name."""
    rows, _ = named(part, run=run)
    return rows.assign(**{POINT: 0}), [point]


def _by_parts(file: BinaryIO) -> Part:
    """The rows of a file in which all lines have the three parts.

    Raises:
      ValueError, RecursionError: a line has another form.
    """
    runs, ats = dict[bytes, int](), dict[bytes, int]()
    at_run, at_at, values = array.array("i"), array.array("i"), list[np.ndarray]()
    while lines := _whole(itertools.islice(file, LINES)):
        texts = []
        for line in lines:
            run, _, rest = line.partition(STAGE_KEY)
            at, _, text = rest.rpartition(VALUE_KEY)
            at_run.append(runs.setdefault(run, len(runs)))
            at_at.append(ats.setdefault(at, len(ats)))
            texts.append(text)
        values.append(_numbers(texts))
    of_run = pd.DataFrame([_parsed(b"%s}" % run, OF_RUN) for run in runs], columns=OF_RUN)
    of_at = pd.DataFrame([_parsed(b"{%s%s}" % (STAGE_KEY[2:], at), AT) for at in ats], columns=AT)
    points = list(of_run.pop("hparams"))
    of_run[POINT] = np.arange(len(runs))
    halves = [half.take(places).reset_index(drop=True) for half, places in ((of_run, at_run), (of_at, at_at))]
    return pd.concat(halves, axis="columns").assign(**{VALUE: np.concatenate([*values, np.empty(0)])}), points


def _whole(lines: Iterable[bytes]) -> list[bytes]:
    """The complete lines of a file, without a last one that lacks its end."""
    whole = list(lines)
    if whole and not whole[-1].endswith(b"\n"):
        *whole, last = whole
        with contextlib.suppress(ValueError, RecursionError):
            strict_json.loads(last)
            whole.append(last + b"\n")
    return whole


def _parsed(text: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """Parses a part of a row.

    Raises:
      ValueError, RecursionError: it is not one.
    """
    part = strict_json.loads(text)
    if list(part) != list(keys) or not _fits(part):
        raise ValueError("no part of a row")
    return part


def _numbers(texts: Sequence[bytes]) -> np.ndarray:
    """Parses the values of rows, each followed by the end of its row.

    Raises:
      ValueError, OverflowError, RecursionError: they have another form.
    """
    joined, end = b"".join(texts), b"}\n"
    values = strict_json.loads(b"[%s]" % joined.replace(end, b",").removesuffix(b","))
    if not len(values) == len(texts) == joined.count(end) or not {*map(type, values)} <= {float, int, bool, type(None)}:
        raise ValueError("no number and brace in each")
    return np.array(values, float)


def _by_row(path: Path) -> Part:
    """The same table, from the rows of `metrics.read`."""
    rows = metrics.read(path)
    for row in rows:
        value = row.get(VALUE, "")
        plain = value is None or isinstance(value, (int, float))
        if not (plain and row.keys() >= {*OF_RUN, *AT} and _fits(row)):
            raise LabError(f"{path} holds {ascii(row)[:60]}, which is not a row of a table; repair or delete it")
    table = pd.DataFrame(rows, columns=[*OF_RUN, *AT, VALUE])
    table = table.assign(
        **{VALUE: pd.to_numeric(table[VALUE], errors="coerce").astype(float), POINT: np.arange(len(rows))}
    )
    return table, list(table.pop("hparams"))


def _fits(part: metrics.Row) -> bool:
    """Whether the values of a row, or of a part of it, have the right types."""
    types: dict[str, Any] = {**dict.fromkeys(WORDS, str), **dict.fromkeys(NUMBERS, (int, float)), "hparams": dict}
    return all(isinstance(value, types[key]) for key, value in part.items() if key in types)
