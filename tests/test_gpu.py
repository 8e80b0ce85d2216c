"""`python -m tests.gpu` measures what it says and survives failures; other processes stand in for those on a GPU."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from plasticity_jax.configs import multistage
from plasticity_jax.errors import LabError
from tests.benchmarks import channel
from tests.gpu import __main__ as command
from tests.gpu import cells, checks, figure, table, worker
from tests.gpu.cells import Cell

ROOT = Path(__file__).parent.parent
# A worker that trains a step of `runs` batches in 2 ms of its own clock, crashes at 32 runs and fails for `vmap`.
FAKE = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("runs") == 32:
        os._exit(7)
    print(json.dumps({
        "build": {"step_images": 128 * asked.get("runs", 1), "compile_seconds": 1.0}
        if asked.get("strategy") != "vmap" else {"error": "XlaRuntimeError: RESOURCE_EXHAUSTED"},
        "train": {"seconds": 2e-3 * asked.get("steps", 0)},
        "matmul": {"flops": 1e12},
        "golden": {"ok": True, "wrong": {}},
        "study": {"sha256": str(asked.get("strategy")), "weights": asked.get("directory", "") + ".npz"},
    }[asked["do"]]), flush=True)
"""
PLAN = cells.full()


@pytest.fixture
def workers(tmp_path, monkeypatch):
    monkeypatch.setattr(cells.rounds, "REST", 0.0)
    (tmp_path / "fake.py").write_text(FAKE)
    with open(tmp_path / "log.txt", "w") as log:
        crew = worker.Crew(2, log, [sys.executable, "-S", str(tmp_path / "fake.py")])
        yield crew
        crew.close()


def small_plan(*found: Cell) -> cells.Plan:
    return cells.Plan(found, 2, "bfloat16", 128, 32, 100, "compile", 8, 0.1, 5.0, 5.0)


# ---- speed ----


def test_the_first_cells_are_those_of_the_goal():
    assert PLAN.cells[:3] == tuple(Cell(64, "imagenet", *kind) for kind in (("batched", 8), ("map", 8), ("torch", 1)))
    grid = {Cell(w, s, k, n) for w in (8, 16, 64) for s in ("imagenet", "cifar") for k in ("map", "vmap", "batched")
            for n in (1, 8, 32)}  # fmt: skip
    assert {cell for cell in PLAN.cells if cell.strategy != "torch"} == grid
    assert len([cell for cell in PLAN.cells if cell.strategy == "torch"]) == 6 and len(PLAN.cells) == 60


def test_cells_are_measured_one_by_one_and_failures_stand_in_their_place(workers):
    names = ("batched", 8), ("vmap", 8), ("map", 32), ("map", 1)
    plan, rows, sizes = small_plan(*(Cell(64, "imagenet", *name) for name in names)), [], []
    cells.run(plan, workers, workers.hire(), sys.executable, rows, lambda: 60.0, lambda: sizes.append(len(rows)))
    assert sizes == [1, 2, 3, 4]
    batched, vmap, died, alone = rows
    assert batched["images_per_second"]["median"] == pytest.approx(8 * 128 / 2e-3)
    assert batched["of_matmul"] == pytest.approx(8 * 128 / 2e-3 * cells.flops.training(64, "imagenet") / 1e12)
    assert vmap["error"] == "XlaRuntimeError: RESOURCE_EXHAUSTED" and died["error"] == "the process ended (status 7)"
    assert cells.speed(rows) == batched["images_per_second"]["median"] and cells.speed(rows, width=8) == 0
    before = list(rows)
    cells.run(plan, workers, workers.hire(), sys.executable, rows, lambda: 60.0, lambda: None)
    assert [row for row in rows if "error" not in row] == [batched, alone]  # only what failed is tried again
    assert len(rows) == len(before)


def test_no_cell_is_begun_without_time(workers):
    found: list = []
    cells.run(PLAN, workers, workers.hire(), sys.executable, found, lambda: 1.0, lambda: None)
    assert found == []


def test_a_cell_that_hangs_is_given_up():
    with worker.crew(1, Path(os.devnull)) as crew:
        hung = crew.start([sys.executable, "-S", "-c", "import time; time.sleep(60)"], {})
        with hung.within(0.1), pytest.raises(channel.PeerError, match="^no answer within 0 s$"):
            hung.ask(do="build")


def test_ratios_to_pytorch_are_of_the_same_network():
    def row(width, strategy, images):
        return {"width": width, "stem": "cifar", "strategy": strategy, "images_per_second": {"median": images}}

    rows = [row(64, "torch", 10.0), row(64, "map", 25.0), row(8, "map", 9.0)]
    cells.compare(rows)
    assert [each.get("of_torch") for each in rows] == [1.0, 2.5, None]


# ---- checks ----


def test_studies_are_compared_as_soon_as_both_are_there(workers, tmp_path):
    for i, name in enumerate(checks.STUDIES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.savez(tmp_path / f"{name}.npz", a=np.ones(4), b=np.full(3, 2.0 + 1e-5 * i))
    entries, notes = {}, []
    checks.run(workers, entries, tmp_path, lambda: 30.0, lambda: notes.append(len(entries)), "resnet")
    assert set(entries) == {"golden step", *checks.COMPARISONS} and len(notes) == 1 + len(checks.STUDIES)
    assert all(entry["ok"] for entry in entries.values())  # the stand-in's hash is the strategy
    assert not entries["batched against map"]["same_bits"]
    assert 0 < entries["batched against map"]["relative"] < checks.ROUNDING


def test_what_differs_or_failed_is_told(tmp_path):
    for name, value in (("one", 1.0), ("other", 1.01)):
        np.savez(tmp_path / f"{name}.npz", a=np.full(4, value))
    one, other = ({"sha256": name, "weights": str(tmp_path / f"{name}.npz")} for name in ("one", "other"))
    judged = {most: checks.judged(other, one, most) for most in (0.0, 1e-4, 0.1)}
    assert [entry["ok"] for entry in judged.values()] == [False, False, True]
    assert judged[0.0]["relative"] == pytest.approx(0.01)
    assert checks.judged(one, {"error": "it died"}, 0.1) == {"error": "it died"}
    lines = [
        *table.checks({"bits": judged[0.0], "stop": {"error": "it died"}, "step": {"ok": False, "wrong": {"loss": 1}}})
    ]
    assert lines == [
        "- bits: WRONG (relative difference 1.0e-02)",
        "- stop: not checked, it died",
        "- step: WRONG (loss)",
    ]


# ---- Figure 1 ----

IMAGES = 294_000_000


@pytest.mark.parametrize(
    ("rate", "seconds", "expected"),
    [
        (300_000, 270, (5, 55, 78)),
        (300_000, 3600, (5, 350, 500)),
        (130_000, 270, (3, 39, 56)),
        (0, 270, (3, 12, 17)),
        (1, 60, (3, 1, 1)),
    ],
)
def test_epochs_follow_from_speed_and_time(rate, seconds, expected):
    found = figure.choose(rate, seconds, IMAGES, figure.whole(False))
    assert tuple(found) == expected
    assert found.tune < 500 and found.tune > 1 or rate in (1, 300_000)


def test_the_study_is_the_papers_but_for_its_length():
    settings = figure.config(figure.Choice(5, 350, 500), "cifar10", "").to_dict()
    paper = multistage.get_config().to_dict()
    assert settings["model"].pop("dtype") == "bfloat16" and paper["model"].pop("dtype")
    assert settings == paper
    short = figure.config(figure.Choice(3, 39, 56), "cifar10_jpeg", "x")
    assert (short.seeds, short.stages.pretrain.epochs, short.stages.tune.epochs) == ((0, 1, 2), 39.0, 56.0)


def test_without_data_it_says_what_to_do(tmp_path):
    with pytest.raises(LabError, match="^no prepared CIFAR-10 in .*--data_dir DIR"):
        figure.locate(str(tmp_path))
    (tmp_path / "downloads/manual").mkdir(parents=True)
    (tmp_path / "downloads/manual/cifar-10-binary.tar.gz").touch()
    assert figure.locate(str(tmp_path)) == ("cifar10", str(tmp_path))


# ---- the command ----


def facts(**changed):
    return {
        "backend": "gpu",
        "device_kind": "NVIDIA H100",
        "commit": "a",
        "packages": {},
        "description": "x {}",
    } | changed


def test_the_card_is_described_and_results_of_two_are_not_mixed(tmp_path, capsys):
    flags = command.parse([f"--out={tmp_path}"])
    report = command.Report(tmp_path / "gpu.json")
    command.describe(facts(), flags, report)
    assert (tmp_path / "nvidia-h100.txtpb").read_text() == "x {}"
    again = command.Report(tmp_path / "gpu.json")
    with pytest.raises(LabError, match="was measured with device_kind NVIDIA H100, and this is NVIDIA A100"):
        command.describe(facts(device_kind="NVIDIA A100"), flags, again)
    with pytest.raises(LabError, match="^jax finds no GPU here, only cpu; --quick"):
        command.describe(facts(backend="cpu", device_kind="cpu"), flags, command.Report(tmp_path / "new.json"))
    assert "NVIDIA H100 (gpu)" in capsys.readouterr().out


def test_the_table_has_a_row_for_each_cell():
    speed = {"median": 3e5, "low": 2e5, "high": 4e5}
    good = Cell(64, "imagenet", "batched", 8)._asdict() | {"images_per_second": speed, "of_matmul": 0.25, "of_torch": 9}
    bad = Cell(64, "imagenet", "map", 8)._asdict() | {"error": "no answer within 60 s"}
    report = {"checks": {}, "cells": [good, bad], "figure": {"choice": [5, 55, 78], "result": "stopped and saved"}}
    report["goal"] = {"images_per_second": cells.GOAL, "measured": 3e5}
    text = table.markdown(report)
    assert "| 64 | imagenet | batched | 8 | 300,000 | 200,000 to 400,000 | 9.00 | 25.0 % |" in text
    assert "| 64 | imagenet | map | 8 | no answer within 60 s |  |  |  |" in text
    assert "300,000 images/s, goal 300,000" in text and "5 seeds, 55 + 78 epochs: stopped and saved" in text


def start(out: Path, *more: str) -> subprocess.Popen:
    call = [sys.executable, "-m", "tests.gpu", f"--out={out}", "--quick", "--minutes=12", *more]
    return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_is_of_use_wherever_it_is_cut_off_and_goes_on(tmp_path, number):
    out = tmp_path / "gpu"
    first = start(out)
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((out / "gpu.json").read_text())["checks"]:
                break
        time.sleep(0.1)
    first.send_signal(number)
    first.communicate(timeout=60)
    report = json.loads((out / "gpu.json").read_text())
    assert report["checks"] and not report["finished"] and report["machine"]["backend"] == "cpu"
    second = start(out)
    text, _ = second.communicate(timeout=800)
    report = json.loads((out / "gpu.json").read_text())
    assert second.returncode == 0 and report["finished"], text
    assert set(report["checks"]) == {"golden step", *checks.COMPARISONS}
    assert all(entry["ok"] for entry in report["checks"].values()), report["checks"]
    assert report["figure"]["result"] == "finished" and (out / "figure1/metrics.parquet").exists()
    assert report["figure"]["study"]["from_cache"] >= report["figure"]["compiled"] > 0
    assert len(report["cells"]) == 3 and any("images_per_second" in row for row in report["cells"])
    assert not (tmp_path / "gpu-scratch").exists()
