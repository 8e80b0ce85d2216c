"""The table of measurements loses and duplicates no row, wherever it is cut off."""

import json
import math
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.storage import metrics
from tests.support.disks import disk_of


def row(step, value=0.5, metric="test_accuracy"):
    return {
        "run": "fresh,tune.optim.learning_rate=0.1/seed3",
        "seed": 3,
        "branch": "fresh",
        "hparams": {"tune.optim.learning_rate": 0.1},
        "stage": "tune",
        "epoch": step / 10,
        "step": step,
        "metric": metric,
        "value": value,
    }


def written(path, rows, mark=None):
    table = metrics.Table(path, mark)
    table.append(rows)
    mark = table.mark()
    table.close()
    return mark


def test_rows_round_trip(tmp_path):
    rows = [row(0), row(1, 1 / 3), row(2, -1e-300, "weight norm, \u00fc\n")]
    written(tmp_path / "deep" / "metrics.jsonl", rows)
    assert metrics.read(tmp_path / "deep" / "metrics.jsonl") == rows


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, np.float32("nan"), None])
def test_a_value_that_is_not_finite_is_null(tmp_path, value):
    written(tmp_path / "t", [row(0, value)])
    assert (tmp_path / "t").read_text().endswith('"value": null}\n')
    assert metrics.read(tmp_path / "t") == [row(0, None)]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_tables_of_earlier_versions_read_the_same(tmp_path, text):
    """They contain bare NaN and infinities; byte positions remain valid, so they can be continued."""
    old = json.dumps(row(0, float(text))) + "\n"
    (tmp_path / "t").write_text(old)
    mark = {"bytes": len(old), "crc32": zlib.crc32(old.encode())}
    assert text in old and metrics.read(tmp_path / "t", mark) == [row(0, None)]
    written(tmp_path / "t", [row(1)], mark)
    assert metrics.read(tmp_path / "t") == [row(0, None), row(1)]


def test_scalars_of_numpy_are_numbers(tmp_path):
    written(tmp_path / "t", [row(np.int64(4), np.float32(0.25))])
    assert metrics.read(tmp_path / "t") == [row(4, 0.25)]


def test_an_empty_append_changes_nothing(tmp_path):
    table = metrics.Table(tmp_path / "t", None)
    table.append([])
    assert table.mark() == {"bytes": 0, "crc32": 0}
    assert metrics.read(tmp_path / "t") == []
    table.close()


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    kills=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 1)), max_size=5),
)
def test_no_row_is_lost_or_doubled_by_kills(tmp_path_factory, batches, kills):
    """A writer that is killed at any byte, and resumes from its last mark, leaves the table of one never killed.

    Each kill is (batches written since the start, whether a mark follows each batch, how much reached the disk).
    """
    path = tmp_path_factory.mktemp("table") / "t"
    todo = [[row(i * 10 + k, 1 / (1 + k)) for k in range(n)] for i, n in enumerate(batches)]
    done, mark = 0, None
    for steps, marks, reached in kills:
        table = metrics.Table(path, mark)
        for i in range(done, min(done + steps, len(todo))):
            table.append(todo[i])
            if marks:
                done, mark = i + 1, table.mark()
        table.close()
        safe, size = mark["bytes"] if mark else 0, path.stat().st_size
        os.truncate(path, safe + round(reached * (size - safe)))
        assert metrics.read(path) == sum(todo, [])[: len(metrics.read(path))]
    table = metrics.Table(path, mark)
    for batch in todo[done:]:
        table.append(batch)
    assert metrics.read(path) == sum(todo, [])
    assert metrics.fits(path, table.mark()) and table.mark()["bytes"] == path.stat().st_size
    table.close()


def test_every_cut_below_the_mark_is_refused(tmp_path):
    path = tmp_path / "t"
    mark = written(path, [row(0)])
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert not metrics.fits(path, mark)
        with pytest.raises(WorkdirError, match="lost or changed rows"):
            metrics.Table(path, mark)
        assert path.read_bytes() == whole[:size]  # a refusal changes nothing


def test_a_changed_byte_is_refused(tmp_path):
    path = tmp_path / "t"
    mark = written(path, [row(0), row(1)])
    assert metrics.fits(path, mark)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert not metrics.fits(path, mark)


def test_a_missing_table_fits_only_the_empty_mark(tmp_path):
    assert metrics.fits(tmp_path / "t", {"bytes": 0, "crc32": 0})
    assert not metrics.fits(tmp_path / "t", {"bytes": 1, "crc32": 0})


def test_no_mark_starts_an_empty_table(tmp_path):
    written(tmp_path / "t", [row(0), row(1)])
    written(tmp_path / "t", [row(5)])
    assert metrics.read(tmp_path / "t") == [row(5)]


def test_only_the_last_line_may_be_torn(tmp_path):
    path = tmp_path / "t"
    written(path, [row(0), row(1), row(2)])
    whole = path.read_bytes()
    for tail in (whole[:-1], whole[:-9], whole + b"\0\0\0", whole + b"7"):
        path.write_bytes(tail)
        assert metrics.read(path) == [row(0), row(1), row(2)][: 2 if tail == whole[:-9] else 3]
    lines = whole.splitlines(keepends=True)
    for broken in (lines[1][:20] + b"\n", b"\n", b"3\n", b"\xff\n"):
        path.write_bytes(lines[0] + broken + lines[2])
        with pytest.raises(LabError, match=r"t, line 2: "):
            metrics.read(path)


def test_reading_nothing_is_a_clear_error(tmp_path):
    with pytest.raises(LabError, match="cannot read .*: No such file"):
        metrics.read(tmp_path / "t")


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path):
    table = metrics.Table(tmp_path / "t", None)
    table.append([row(0)])
    before = table.mark()
    with disk_of(1000), pytest.raises(WorkdirError, match="cannot write .*: ") as error:
        table.append([row(i) for i in range(1, 50)])
    assert "\n" not in str(error.value)
    assert metrics.read(tmp_path / "t") == [row(0)] and table.mark() == before
    table.append([row(1)])
    assert metrics.read(tmp_path / "t") == [row(0), row(1)]
    table.close()


def test_a_path_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write"):
        metrics.Table(tmp_path / "file" / "t", None)
