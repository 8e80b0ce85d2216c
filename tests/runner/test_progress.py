"""The progress line says where the runs are and when they will finish."""

import io
import types

import pytest

from plasticity_jax.runner import progress, schedule
from tests.support.tiny import DATASET, groups, stage, study

NAN = float("nan")


class Stream(io.StringIO):
    """A file, or a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def now(monkeypatch):
    """A clock that advances only when a test says so."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def group():
    """Two runs of 2 epochs of 7 steps of 16 images: 448 images."""
    return schedule.draw_up(groups(stage(), seeds=(0, 1))[0], study(), DATASET)


def test_line_of_a_file(now, group):
    line = progress.Progress(group.images(), Stream(False))
    line.update("main", group, [0, 0], NAN)
    now.seconds += 16
    line.update("main", group, [7, 3], 81.256)
    assert line.stream.getvalue().splitlines() == [
        "main/train  epoch 0.0/2.0  2 runs",
        "main/train  epoch 0.7/2.0  2 runs  test 81.26 %  10 images/s  ETA 29 s",
    ]


def test_instruments_count_for_the_time_that_is_left_and_not_for_the_speed(now, group):
    """448 images, and measurements that cost as much as 1,552 more: 1,400 of them at the first steps, in 10 s."""
    line = progress.Progress(group.images(), Stream(False), measuring=1552)
    line.update("main", group, [0, 0], NAN)
    now.seconds += 10
    line.update("main", group, [4, 4], NAN, measured=1472)
    assert line.facts()["images_per_second"] == pytest.approx(12.8)
    assert line.facts()["seconds_left"] == pytest.approx((2000 - 1600) / 160)
    line.finish(group, 1552)
    line.update("main", group, [0, 0], NAN)
    assert line.left == 0


def test_a_file_gets_a_line_now_and_then(now, group):
    line = progress.Progress(group.images(), Stream(False), every=15.0)
    for step in range(14):
        line.update("main", group, [step, step], NAN)
        now.seconds += 4.0
    assert [text.split("  ")[1] for text in line.stream.getvalue().splitlines()] == [
        f"epoch {step / 7:.1f}/2.0" for step in (0, 4, 8, 12)
    ]


def test_a_terminal_shows_one_line(now, group):
    line = progress.Progress(group.images(), Stream(True))
    line.update("main", group, [0, 0], 5.0)
    line.update("main", group, [0, 0], 5.0)  # immediately after another: not shown
    now.seconds += 1
    line.update("main", group, [1, 1], NAN)
    first, second = line.stream.getvalue().split("\r")[1:]
    assert (first, second) == (
        "main/train  epoch 0.0/2.0  2 runs  test 5.00 %",
        "main/train  epoch 0.1/2.0  2 runs  32 images/s  ETA 13 s",
    )
    now.seconds += 1
    line.write("short")
    assert line.stream.getvalue().endswith("\rshort".ljust(len(second) + 1))  # no rest of the longer one remains
    assert "\n" not in line.stream.getvalue()


def test_a_note_stays(now, group):
    terminal, file = Stream(True), Stream(False)
    for stream in (terminal, file):
        line = progress.Progress(group.images(), stream)
        line.write("12345")
        line.note("saved")
        line.note("again")
    assert terminal.getvalue() == "\r12345\r     \rsaved\nagain\n"
    assert file.getvalue() == "12345\nsaved\nagain\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_shows_a_number_that_is_none(now, group, terminal):
    line = progress.Progress(group.images(), Stream(terminal))
    for steps in ([0, 0], [0, 0], [1, 0], [14, 14], [14, 14]):
        line.update("main", group, steps, NAN)
        now.seconds += 0.0 if steps == [0, 0] else 20.0
    shown = line.stream.getvalue().lower()
    assert "epoch 2.0/2.0" in shown
    assert "nan" not in shown and "inf" not in shown and "-" not in shown


def test_the_rate_is_of_this_process_and_without_pauses(now, group):
    """Work before a restart, and the time of compilation, do not change the remaining time."""
    line = progress.Progress(group.images(), Stream(False), every=0.0)
    now.seconds += 50.0  # before the first line
    line.update("main", group, [7, 7], NAN)
    now.seconds += 110.0
    line.pause(100.0)
    line.update("main", group, [8, 9], NAN)  # 48 images in 10 seconds; 11 steps of 16 are left
    assert line.stream.getvalue().splitlines()[-1].endswith("5 images/s  ETA 37 s")


def test_legs_that_are_over_count(now, group):
    line = progress.Progress(2 * group.images(), Stream(False), every=0.0)
    line.update("main", group, [0, 0], NAN)
    now.seconds += 10.0
    line.update("main", group, [14, 14], NAN)
    line.finish(group)
    line.update("main", group, [0, 0], NAN)
    lines = line.stream.getvalue().splitlines()
    assert lines[1].endswith("45 images/s  ETA 10 s") and lines[2].endswith("45 images/s  ETA 10 s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (7.4, "7 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


def test_facts_are_reported_now_and_then(now, group):
    said = []
    line = progress.Progress(2 * group.images(), Stream(False), report=said.append)
    assert line.facts() == dict(images=0, images_planned=896, images_per_second=None, seconds_left=None)
    for step in range(8):
        line.update("main", group, [step, 0], NAN)
        now.seconds += 4.0
    assert [each["step"] for each in said] == [0, 3, 6]
    assert said[1] == dict(
        pack="main", stage="train", step=3, images=48, images_planned=896, images_per_second=4.0, seconds_left=212.0
    )
    line.finish(group)
    assert line.facts()["images"] == 448
