"""A file of measurements is the same table whichever way it is read, and no broken line is accepted."""

import json
import tracemalloc

import pandas as pd
import pytest

from plasticity_jax.analysis.reading import tables
from plasticity_jax.errors import LabError
from plasticity_jax.storage import metrics

RATES = {0.1: {"rate": 0.1, "model.width": 4}, 1: {"rate": 1}, "decayed": {"rate": [1, 0.5], "noisy": True}}


def row(step=0, value=0.5, seed=3, branch="fresh", metric="test_accuracy", **hparams):
    run = f"{branch},{hparams}/seed{seed}"
    point = dict(run=run, seed=seed, branch=branch, hparams=hparams)
    return {**point, "stage": "tune", "epoch": step / 10, "step": step, "metric": metric, "value": value}


ROWS = [
    row(step, value, seed, branch, metric, **RATES[rate])
    for step, value in enumerate([1, 0.1 + 0.2, None, -1e-300, 2**60, 1e17])
    for seed in (0, 10)
    for branch, rate in [("fresh", 0.1), ("wärm\n", 1), ("a, \"stage\": b", "decayed")]
    for metric in ("test_accuracy", "norm/ü")
]  # fmt: skip


def write(path, rows, ends="\n", **options):
    path.write_text("".join(json.dumps(each, **options) + ends for each in rows))
    return path


def plain(row, points):
    """A row of the table as it is in the file."""
    point = points[row.pop(tables.POINT)]
    return {**row, "hparams": point, "value": None if pd.isna(row["value"]) else row["value"]}


def same(one, other):
    pd.testing.assert_frame_equal(*(tables.joined([part]) for part in (one, other)), check_exact=True)


def test_a_table_read_by_parts_is_the_one_read_row_by_row(tmp_path):
    lab = tables.read(write(tmp_path / "lab", ROWS))
    assert list(map(plain, lab[0].to_dict("records"), [lab[1]] * len(ROWS))) == ROWS
    assert len(lab[1]) == 6  # once for each run
    other = tables.read(
        write(tmp_path / "other", ROWS, separators=(",", ":"))
    )  # the same values, in a form that the lab does not write
    assert len(other[1]) == len(ROWS)
    same(lab, other)
    assert tables.joined([lab]).dtypes[["seed", "step", "epoch", "value"]].map(str).tolist() == [
        "int64", "int64", "float64", "float64"
    ]  # fmt: skip


def test_few_rows_are_in_memory_at_once(tmp_path):
    path = write(tmp_path / "t", [row(step, step / 3, seed) for step in range(600) for seed in range(5)])

    def peak(read):
        read(path)
        tracemalloc.start()
        read(path)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert 3 * peak(tables.read) < peak(metrics.read)


LINE = json.dumps(row(1))


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("0.5}", "NaN}"),  # as earlier versions wrote it
        LINE.replace("0.5}", "0.5 }"),
        LINE.replace("0.5}", '0.5, "note": "more"}'),
        LINE.replace('"seed": 3, ', "").replace("{", '{"seed": 3, ', 1),
        LINE.replace('"seed": 3', '"seed": 3.0'),
    ],
)
def test_what_is_unusual_reads_as_it_would_alone(line, tmp_path):
    (tmp_path / "t").write_text(f"{LINE}\n{line}\n{LINE}\n")
    (wanted,) = metrics.read(write(tmp_path / "alone", [json.loads(line)]))
    rows, points = tables.read(tmp_path / "t")
    assert rows.seed[1] == wanted["seed"] and points[rows[tables.POINT][1]] == {}
    assert pd.isna(rows.value[1]) if "NaN" in line else rows.value[1] == wanted["value"]
    assert rows.value.tolist()[::2] == [0.5, 0.5]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        LINE[:-1],
        LINE + LINE,
        LINE + " 1",
        LINE[:40] + "\n" + LINE[40:],
        LINE.replace("0.5}", '"0.5"}'),
        LINE.replace("0.5}", "1_0}"),
        LINE.replace("0.5}", "inf}"),
        LINE.replace("0.5}", "[0.5]}"),
        LINE.replace("0.5}", "0.5, 0.5}"),
        LINE.replace("0.5}", "}"),
        LINE.replace(', "value": 0.5', ""),
        LINE.replace('"seed": 3', '"seed": "3"'),
        LINE.replace('"seed": 3, ', ""),
        LINE.replace('"step": 1', '"step": null'),
        LINE.replace('"test_accuracy"', "3"),
        LINE.replace('"fresh"', "null"),
        LINE.replace('"hparams": {}', '"hparams": []'),
        LINE.replace('"hparams": {}', '"hparams": ' + "[" * 100_000),
    ],
    ids=lambda line: line[:40] + ".." + line[-20:],
)
def test_a_broken_line_is_refused(line, tmp_path):
    for after in (f"{LINE}\n", ""):
        (tmp_path / "t").write_text(f"{LINE}\n{line}\n{after}")
        with pytest.raises(LabError, match="not a row of a table; repair or delete"):
            tables.read(tmp_path / "t")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "t").write_bytes(f"{LINE}\n".encode() + LINE.encode().replace(b"fresh", b"\xff") + b"\n")
    with pytest.raises(LabError, match="line 2: not a row of a table"):
        tables.read(tmp_path / "t")


@pytest.mark.parametrize("length", [1, 60, len(LINE) - 1, len(LINE)])
def test_a_torn_last_line_is_left_out(length, tmp_path):
    write(tmp_path / "t", ROWS)
    with (tmp_path / "t").open("a") as file:
        file.write(LINE[:length])
    assert len(tables.read(tmp_path / "t")[0]) == len(ROWS) + (length == len(LINE))


def test_an_empty_file_changes_no_type(tmp_path):
    empty, full = tables.read(write(tmp_path / "empty", [])), tables.read(write(tmp_path / "full", ROWS))
    assert empty[0].empty and tables.joined([empty]).empty
    pd.testing.assert_frame_equal(tables.joined([empty, full, empty]), tables.joined([full]))


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(LabError, match=r"cannot read .*none: No such file"):
        tables.read(tmp_path / "none")
