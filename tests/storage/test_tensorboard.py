"""Event files contain each row of the table exactly once."""

import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from plasticity_jax import analysis
from plasticity_jax.errors import WorkdirError
from plasticity_jax.storage.tensorboard import Board, tag
from tests.support import small


def row(step, value, run="fresh/seed0", metric="test_accuracy", stage="tune"):
    return {"run": run, "stage": stage, "step": step, "metric": metric, "value": value}


def events(path):
    """The events of a TFRecord file, whose checksums are verified."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body, data, head = data[12 : 12 + length], data[16 + length :], data[: 16 + length]
        assert struct.unpack("<I", head[8:12])[0] == masked_crc32c(head[:8])
        assert struct.unpack("<I", head[-4:])[0] == masked_crc32c(body)
        yield Event.FromString(body)


def scalars(directory):
    """{(directory of a run, tag, step): [values]} of all event files."""
    values = {}
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        first, *rest = events(path)
        assert first.file_version == "brain.Event:2"
        for event in rest:
            assert event.wall_time > 0
            for value in event.summary.value:
                key = (path.parent.relative_to(directory).as_posix(), value.tag, event.step)
                values.setdefault(key, []).append(value.simple_value)
    return values


def test_rows_are_scalars(tmp_path):
    board = Board(tmp_path / "new" / "board", "main", "tune", [row(0, 10.5)])
    board.append([row(5, 50.25), row(5, 0.5, metric="test_loss"), row(5, 60.0, run="fresh,tune.lr=0.1/seed12")])
    board.append([row(10, float("inf"))])
    board.append([row(15, None)])
    board.append([])
    board.close()
    values = scalars(tmp_path / "new" / "board")
    (lost,) = values.pop(("fresh/seed0", "accuracy/test/tune", 15))
    assert math.isnan(lost)  # which TensorBoard marks
    assert values == {
        ("fresh/seed0", "accuracy/test/tune", 0): [10.5],
        ("fresh/seed0", "accuracy/test/tune", 5): [50.25],
        ("fresh/seed0", "loss/test/tune", 5): [0.5],
        ("fresh,tune.lr=0.1/seed12", "accuracy/test/tune", 5): [60.0],
        ("fresh/seed0", "accuracy/test/tune", 10): [float("inf")],
    }


def test_tags_sort_as_one_looks_at_them():
    metrics = ["weight_norm/head", "train_loss", "test_loss", "train_accuracy", "sparsity", "test_accuracy"]
    assert sorted(tag(metric, stage) for metric in metrics for stage in ("tune", "pretrain"))[:3] == [
        "accuracy/test/pretrain",
        "accuracy/test/tune",
        "accuracy/train/pretrain",
    ]
    assert sorted(tag(metric, "tune") for metric in metrics)[2:] == [
        "loss/test/tune",
        "loss/train/tune",
        "network/sparsity/tune",
        "network/weight_norm/head/tune",
    ]
    assert tag("train_eval_accuracy", "tune") == "accuracy/train_eval/tune"
    assert len({tag(metric, "tune") for metric in ["accuracy", "_accuracy", "accuracy/test"]}) == 3


def test_a_restart_doubles_nothing_and_forgets_what_was_cut(tmp_path):
    kept, cut = [row(0, 1.0), row(1, 2.0)], [row(2, 3.0), row(0, 9.0, run="gone/seed0")]
    (tmp_path / "notes.txt").write_text("mine")
    Board(tmp_path, "main", "tune", []).append(kept + cut)
    for _ in range(2):
        board = Board(tmp_path, "main", "tune", kept)
    assert scalars(tmp_path) == {("fresh/seed0", "accuracy/test/tune", i): [i + 1.0] for i in range(2)}
    board.append([row(2, 4.0)])
    assert scalars(tmp_path)["fresh/seed0", "accuracy/test/tune", 2] == [4.0]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_restart_leaves_other_stages_and_packs_alone(tmp_path):
    """Though their rows are in the same directories, and the name of one may end like another's."""
    others = [("main", "pretrain"), ("main", "re.tune"), ("width=8", "tune"), ("my.main", "tune")]
    for pack, stage in others:
        Board(tmp_path, pack, stage, [row(0, 1.0, stage=f"{pack}-{stage}")])
    Board(tmp_path, "main", "tune", [row(0, 2.0)])
    Board(tmp_path, "main", "tune", [row(0, 3.0)])
    assert scalars(tmp_path) == {
        ("fresh/seed0", "accuracy/test/tune", 0): [3.0],
        **{("fresh/seed0", f"accuracy/test/{pack}-{stage}", 0): [1.0] for pack, stage in others},
    }


def test_a_study_shows_all_that_its_tables_hold(tmp_path):
    config = small.single(steps=4)
    config.grid = (("model.width", (4, 8)),)
    small.run(config, tmp_path)
    table = analysis.load(tmp_path)
    assert scalars(tmp_path / "tensorboard") == {
        (row.run, tag(row.metric, row.stage), row.step): [pytest.approx(row.value, rel=1e-6)]
        for row in table.itertuples()
    }
    assert set(table.pack) == {"width=4", "width=8"}


def test_runs_keep_apart_in_directories_that_any_file_system_takes(tmp_path):
    runs = ["a/b/seed0", "a_b/seed0", "../x/seed0", "..,/seed0", "a:b*?\u00fc/seed0", "l=" + "x" * 999 + "/seed0"]
    runs += ["l=" + "x" * 998 + "y/seed0"]
    Board(tmp_path / "board", "main", "tune", [row(0, float(i), run=run) for i, run in enumerate(runs)])
    values = scalars(tmp_path / "board")
    assert sorted(values.values()) == [[float(i)] for i in range(len(runs))]
    for directory, _, _ in values:
        name, seed = directory.split("/")
        assert seed == "seed0" and len(name.encode()) < 255
        assert not name.startswith(".") and not set(name) & set(':*?\\"')


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write .*seed0"):
        Board(tmp_path / "file", "main", "tune", [row(0, 1.0)])
