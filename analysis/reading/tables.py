"""A file of measurements, `metrics.jsonl`, as a table of pandas, in a tenth of the time and memory of a dict per row.

A line is `RUN, "stage": AT, "value": NUMBER}`, and few of its first two parts differ, so each is parsed once.  The file
stays the only truth: there is no other one that could be older, and one that is being written reads as well.  Where
anything is unusual, `metrics.read` takes row by row instead, and names the line that is broken.

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
LINES = 20_000  # that are in memory at once


def read(path: Path) -> Part:
    """The rows of a file, null as NaN; a torn last line is left out.

    Raises:
      LabError: the file cannot be read, or a line is no row.
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
    for part, of_part in (part for part in parts if len(part[0])):  # an empty one would widen the types of the others
        rows.append(part.assign(**{POINT: part[POINT] + len(points)}))
        points += of_part
    if not rows:
        return pd.DataFrame()
    table = pd.concat(rows, ignore_index=True)
    names = dict.fromkeys(name for point in points for name in point)
    columns = pd.DataFrame(points, columns=list(names)).take(table.pop(POINT)).set_axis(table.index)
    return pd.concat([table, columns], axis="columns")


def named(part: Part, **words: str) -> Part:
    """The same with more columns, each of one word."""
    rows, points = part
    return rows.assign(
        **{name: pd.Series(word, rows.index, dtype=rows.run.dtype) for name, word in words.items()}
    ), points


def renamed(part: Part, run: str, point: Point) -> Part:
    """The rows of one run by another name, and with the hyper-parameters that belong to it."""
    rows, _ = named(part, run=run)
    return rows.assign(**{POINT: 0}), [point]


def _by_parts(file: BinaryIO) -> Part:
    """The rows of a file of which all lines have the three parts.

    Raises:
      ValueError, RecursionError: another line.
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
    """The lines of a file, all of them ended, without a torn last one."""
    whole = list(lines)
    if whole and not whole[-1].endswith(b"\n"):
        *whole, last = whole
        with contextlib.suppress(ValueError, RecursionError):
            strict_json.loads(last)
            whole.append(last + b"\n")
    return whole


def _parsed(text: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """A part of a row.

    Raises:
      ValueError, RecursionError: it is none.
    """
    part = strict_json.loads(text)
    if list(part) != list(keys) or not _fits(part):
        raise ValueError("no part of a row")
    return part


def _numbers(texts: Sequence[bytes]) -> np.ndarray:
    """The values of rows, each with the end of its row.

    Raises:
      ValueError, OverflowError, RecursionError: something else.
    """
    joined, end = b"".join(texts), b"}\n"
    values = strict_json.loads(b"[%s]" % joined.replace(end, b",").removesuffix(b","))
    if not len(values) == len(texts) == joined.count(end) or not {*map(type, values)} <= {float, int, bool, type(None)}:
        raise ValueError("no number and brace in each")
    return np.array(values, float)


def _by_row(path: Path) -> Part:
    """The same, from rows as `metrics.read` has them."""
    rows = metrics.read(path)
    for row in rows:
        value = row.get(VALUE, "")
        plain = value is None or isinstance(value, (int, float))
        if not (plain and row.keys() >= {*OF_RUN, *AT} and _fits(row)):
            raise LabError(f"{path} holds {ascii(row)[:60]}, which is no row of a table; mend or delete it")
    table = pd.DataFrame(rows, columns=[*OF_RUN, *AT, VALUE])
    table = table.assign(
        **{VALUE: pd.to_numeric(table[VALUE], errors="coerce").astype(float), POINT: np.arange(len(rows))}
    )
    return table, list(table.pop("hparams"))


def _fits(part: metrics.Row) -> bool:
    """Whether what is in a row, or in a part of it, is what it should be."""
    types: dict[str, Any] = {**dict.fromkeys(WORDS, str), **dict.fromkeys(NUMBERS, (int, float)), "hparams": dict}
    return all(isinstance(value, types[key]) for key, value in part.items() if key in types)
