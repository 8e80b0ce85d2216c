"""Event files hold the rows of the table, each once."""

import struct

import pytest

pytest.importorskip("tensorboardX")

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from plasticity_jax.errors import WorkdirError
from plasticity_jax.tensorboard import Board


def row(step, value, run="fresh/seed0", metric="test_accuracy"):
    return {"run": run, "stage": "tune", "step": step, "metric": metric, "value": value}


def events(path):
    """The events of a TFRecord file, checksums checked."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body, data, head = data[12 : 12 + length], data[16 + length :], data[: 16 + length]
        assert struct.unpack("<I", head[8:12])[0] == masked_crc32c(head[:8])
        assert struct.unpack("<I", head[-4:])[0] == masked_crc32c(body)
        yield Event.FromString(body)


def scalars(directory):
    """{(directory of a run, tag, step): [values]} of all event files."""
    found = {}
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        first, *rest = events(path)
        assert first.file_version == "brain.Event:2"
        for event in rest:
            assert event.wall_time > 0
            for value in event.summary.value:
                key = (path.parent.relative_to(directory).as_posix(), value.tag, event.step)
                found.setdefault(key, []).append(value.simple_value)
    return found


def test_rows_are_scalars(tmp_path):
    board = Board(tmp_path / "new" / "board", [row(0, 10.5)])
    board.append([row(5, 50.25), row(5, 0.5, metric="test_loss"), row(5, 60.0, run="fresh,tune.lr=0.1/seed12")])
    board.append([row(10, float("inf"))])
    board.append([])
    board.close()
    assert scalars(tmp_path / "new" / "board") == {
        ("fresh/seed0", "tune/test_accuracy", 0): [10.5],
        ("fresh/seed0", "tune/test_accuracy", 5): [50.25],
        ("fresh/seed0", "tune/test_loss", 5): [0.5],
        ("fresh,tune.lr=0.1/seed12", "tune/test_accuracy", 5): [60.0],
        ("fresh/seed0", "tune/test_accuracy", 10): [float("inf")],
    }


def test_a_restart_doubles_nothing_and_forgets_what_was_cut(tmp_path):
    kept, cut = [row(0, 1.0), row(1, 2.0)], [row(2, 3.0), row(0, 9.0, run="gone/seed0")]
    (tmp_path / "notes.txt").write_text("mine")
    Board(tmp_path, []).append(kept + cut)
    for _ in range(2):
        board = Board(tmp_path, kept)
    assert scalars(tmp_path) == {("fresh/seed0", "tune/test_accuracy", i): [i + 1.0] for i in range(2)}
    board.append([row(2, 4.0)])
    assert scalars(tmp_path)["fresh/seed0", "tune/test_accuracy", 2] == [4.0]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_runs_keep_apart_in_directories_that_any_file_system_takes(tmp_path):
    runs = ["a/b/seed0", "a_b/seed0", "../x/seed0", "..,/seed0", "a:b*?\u00fc/seed0", "l=" + "x" * 999 + "/seed0"]
    runs += ["l=" + "x" * 998 + "y/seed0"]
    Board(tmp_path / "board", [row(0, float(i), run=run) for i, run in enumerate(runs)])
    found = scalars(tmp_path / "board")
    assert sorted(found.values()) == [[float(i)] for i in range(len(runs))]
    for directory, _, _ in found:
        name, seed = directory.split("/")
        assert seed == "seed0" and len(name.encode()) < 255
        assert not name.startswith(".") and not set(name) & set(':*?\\"')


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write .*seed0"):
        Board(tmp_path / "file", [row(0, 1.0)])
