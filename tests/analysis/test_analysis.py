"""Reading working directories, finished or not."""

import json
from pathlib import Path

import numpy as np
import pytest

from plasticity_jax import analysis, study_config
from plasticity_jax.config import columns, parse
from plasticity_jax.configs import base
from plasticity_jax.errors import LabError

TOP = {"pretrain": 50.0, "fresh": 80.0, "pretrain+tune": 75.0}


PLAN = {("pretrain", "pretrain"): 5, ("tune", "fresh"): 10, ("tune", "pretrain+tune"): 10}  # epochs


def write_config(root: Path) -> None:
    config = base.base()
    config.update(dataset="digits", seeds=(0, 1, 2), window=0.2)
    config.stages.pretrain = base.stage(epochs=5.0)
    branches = {"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}
    config.stages.tune = base.stage(epochs=10.0, branches=branches)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps(parse.describe(study_config.parse(config))))


def write_rows(root: Path, stage, branch, values, pack="main", seed=0, **hparams) -> str:
    """Append the rows of one run, an evaluation per epoch; returns the run."""
    run = ",".join([branch, *(f"{key}={value}" for key, value in hparams.items())]) + f"/seed{seed}"
    folder = root / pack / stage
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        for epoch, value in enumerate(values):
            for metric, number in [("test_accuracy", value), ("train_loss", 1.0)]:
                row = dict(run=run, seed=seed, branch=branch, hparams=hparams, stage=stage, epoch=float(epoch))
                file.write(json.dumps({**row, "step": 7 * epoch, "metric": metric, "value": number}) + "\n")
    return run


def write_study(root: Path) -> None:
    """Three seeds of PLAN; seed s is s points better, and the gap is 5, 6 and 7 points."""
    write_config(root)
    runs = []
    for (stage, branch), epochs in PLAN.items():
        for seed in range(3):
            top = TOP[branch] + seed - seed * (branch == "pretrain+tune")
            run = write_rows(root, stage, branch, [top - 30 * (epoch == 0) for epoch in range(epochs + 1)], seed=seed)
            if stage == "tune":
                fields = dict(run=run, pack="main", seed=seed, branch=branch, hparams={})
                runs.append({**fields, "status": "finished", "test_accuracy": top})
    (root / "result.json").write_text(json.dumps({"runs": runs, "gap": None}))


def test_load_gives_a_long_table(tmp_path):
    write_study(tmp_path)
    frame = analysis.load(tmp_path)
    assert list(frame.columns) == [
        "pack",
        "run",
        "seed",
        "branch",
        "stage",
        "status",
        "epoch",
        "step",
        "metric",
        "value",
    ]
    assert len(frame) == 2 * 3 * (6 + 11 + 11)
    last = frame[(frame.metric == "test_accuracy") & (frame.stage == "tune") & (frame.epoch == 10)]
    assert dict(zip(last.run, last.value, strict=True)) == {
        **{f"fresh/seed{s}": 80.0 + s for s in range(3)},
        **{f"pretrain+tune/seed{s}": 75.0 for s in range(3)},
    }
    assert (frame.step == 7 * frame.epoch).all()
    assert set(frame.pack) == {"main"}


def test_load_has_a_column_for_each_hyper_parameter(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0], **{"optim.name": "adam", "lr": 0.1})
    write_rows(tmp_path, "tune", "warm", [2.0], lr=0.2)
    frame = analysis.load(tmp_path)
    assert list(frame.columns[4:6]) == ["optim.name", "lr"]
    assert frame.groupby("lr").value.max().to_dict() == {0.1: 1.0, 0.2: 2.0}
    assert frame.set_index("branch")["optim.name"].isna().to_dict() == {"fresh": False, "warm": True}


def test_load_tells_several_directories_apart(tmp_path):
    for name, value in [("a", 1.0), ("b", 2.0)]:
        write_rows(tmp_path / name, "tune", "fresh", [value])
    frame = analysis.load(tmp_path / "a", str(tmp_path / "b"))
    assert frame[frame.metric == "test_accuracy"].set_index("directory").value.to_dict() == {
        str(tmp_path / "a"): 1.0,
        str(tmp_path / "b"): 2.0,
    }
    assert set(frame) <= columns.COLUMNS


def test_load_reads_a_run_in_progress(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0, 2.0])
    whole = analysis.load(tmp_path)
    with (tmp_path / "main/tune/metrics.jsonl").open("a") as file:
        file.write('{"run": "fresh/seed0", "se')
    assert analysis.load(tmp_path).equals(whole)


def test_load_keeps_what_is_not_finite(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0, float("nan")])
    assert np.isnan(analysis.load(tmp_path).value.astype(float)).sum() == 1


def statuses(directory) -> dict[str, str]:
    """Run -> its status, which must be the same in all its rows."""
    groups = analysis.load(directory).groupby("run").status
    assert (groups.nunique() == 1).all()
    return groups.first().to_dict()


LOST, LEFT = "fresh/seed1", "fresh/seed2"  # diverged according to its rows; according to the result alone


def write_statuses(root: Path) -> None:
    """A study in which one stage has ended and one is in progress."""
    write_rows(root, "pretrain", "pretrain", [1.0, 2.0])
    (root / "main/pretrain/end/0").mkdir(parents=True)
    for seed, ends in enumerate([5.0, None, 5.0]):
        write_rows(root, "tune", "fresh", [4.0, ends], seed=seed)
    write_rows(root, "tune", "warm", [float("inf"), 5.0])  # a run that was once not finite, and is finite again


def test_each_run_has_a_status_while_its_study_is_at_work(tmp_path):
    write_statuses(tmp_path)
    expected = {"pretrain/seed0": "finished", "fresh/seed0": "running", LOST: "failed", LEFT: "running"}
    assert statuses(tmp_path) == {**expected, "warm/seed0": "running"}
    (tmp_path / "main/tune/end/.tmp").mkdir(parents=True)  # not complete yet
    assert statuses(tmp_path)["fresh/seed0"] == "running"
    (tmp_path / "main/tune/end/0").mkdir()
    expected |= {"fresh/seed0": "finished", LEFT: "finished", "warm/seed0": "finished"}
    assert statuses(tmp_path) == expected


@pytest.mark.parametrize("prefix", ["", "main/"])
def test_each_run_has_a_status_when_its_study_has_ended(tmp_path, prefix):
    write_statuses(tmp_path)
    runs = [dict(run=f"{prefix}{run}", pack="main", status="failed") for run in (LOST, LEFT)]
    (tmp_path / "result.json").write_text(json.dumps({"runs": runs}))
    expected = {"pretrain/seed0": "finished", "fresh/seed0": "finished", LOST: "failed", LEFT: "failed"}
    assert statuses(tmp_path) == {**expected, "warm/seed0": "finished"}


@pytest.mark.parametrize("text", ["", "[]", '{"runs": 3}', '{"runs": [3, {}]}'])
def test_a_damaged_result_hides_no_status(tmp_path, text):
    write_statuses(tmp_path)
    (tmp_path / "result.json").write_text(text)
    assert statuses(tmp_path)[LOST] == "failed"


@pytest.mark.parametrize("finished", [True, False])
def test_tables_that_were_collected_without_a_status_have_one(tmp_path, finished):
    write_statuses(tmp_path / "work")
    old = analysis.load(tmp_path / "work").drop(columns="status")
    (tmp_path / "old").mkdir()
    old.to_parquet(tmp_path / "old" / analysis.COMPACT, index=False)
    if finished:
        runs = [dict(run=LEFT, pack="main", status="failed")]
        (tmp_path / "old" / "result.json").write_text(json.dumps({"runs": runs}))
    other = "finished" if finished else "running"
    expected = dict.fromkeys(old.run, other) | {LOST: "failed", LEFT: "failed" if finished else other}
    assert statuses(tmp_path / "old") == expected


def test_infinities_of_earlier_versions_are_no_numbers(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0, float("inf"), float("-inf"), 2.0])
    found = analysis.load(tmp_path)
    assert found[found.metric == "test_accuracy"].value.isna().tolist() == [False, True, True, False]


@pytest.mark.parametrize("content", [None, ""])
def test_load_of_nothing_is_a_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "main/tune").mkdir(parents=True)
        (tmp_path / "main/tune/metrics.jsonl").write_text(content)
    with pytest.raises(LabError, match=f"{tmp_path} holds no measurements"):
        analysis.load(tmp_path)


def test_load_result_and_config(tmp_path):
    with pytest.raises(LabError, match="has not finished"):
        analysis.load_result(tmp_path)
    with pytest.raises(LabError, match="--workdir"):
        analysis.load_config(tmp_path)
    write_study(tmp_path)
    assert len(analysis.load_result(tmp_path)["runs"]) == 6
    assert analysis.load_config(tmp_path)["dataset"] == "digits"
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(LabError, match="no JSON"):
        analysis.load_result(tmp_path)
