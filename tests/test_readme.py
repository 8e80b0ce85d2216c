"""The README's Python runs as it stands there, and its commands and files exist."""

import contextlib
import math
import re
from pathlib import Path
from typing import Any

import pytest

import plasticity_jax
from launch import planner
from plasticity_jax.storage import metrics
from tests.runner.test_protocols import Six

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word: str) -> str:
    """The one block of Python that contains `word`."""
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the example with an own data set, network, reset and diagnostic leaves behind."""
    names: dict = {"directory": tmp_path_factory.mktemp("readme")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["directory"])
        exec(block("class Net"), names)
    return names


def test_the_own_pieces_are_used(own: dict) -> None:
    assert own["result"]["status"] == "finished"
    assert {run["branch"] for run in own["result"]["runs"]} == {"fresh", "pretrain+tune"}
    assert own["params"]["head"]["kernel"].shape == (16, 3)
    assert own["model"].__class__.__name__ == "Net"
    table = (own["directory"] / "runs/own/main/tune/metrics.jsonl").read_text()
    assert '"sparsity"' in table and '"weight_norm/hidden"' in table


def test_saved_metrics_are_read_as_shown(own: dict, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(own["directory"])
    names: dict = {}
    exec(block("analysis.load").replace("runs/demo", "runs/own"), names)
    printed = capsys.readouterr().out
    assert "fresh" in printed and "pretrain+tune" in printed
    documented = "pack seed branch stage status epoch step metric value run".split()
    assert set(documented) <= set(names["table"].columns)


def test_saved_metrics_are_read_as_shown_without_runs_that_diverged(tmp_path, monkeypatch) -> None:
    """pandas would take the last number that there is: of a network at the start, or in the middle."""
    monkeypatch.chdir(tmp_path)
    common = {"seed": 0, "hparams": {}, "stage": "tune"}
    with contextlib.closing(metrics.Table(Path("runs/demo/main/tune/metrics.jsonl"), None)) as table:
        for branch, end in (("fresh", 80.0), ("warm", math.nan)):
            for epoch, value in enumerate([10.0, end]):
                row = {**common, "run": f"{branch}/seed0", "branch": branch, "epoch": float(epoch), "step": epoch}
                table.append([{**row, "metric": metric, "value": value} for metric in ("test_accuracy", "test_loss")])
    names: dict = {}
    exec(block("analysis.load"), names)
    assert names["last"].to_dict() == {("fresh", 0): 80.0}


NETWORKS = [pytest.param(Six(10), id="tiny"), pytest.param(None, id="its-own", marks=pytest.mark.long)]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_plan_runs(network: Any, tmp_path: Path) -> None:
    names: dict = {}
    exec(block("# my_plan.py"), names)
    config = names["get_config"]()
    config.seeds = (0,)
    config.diagnostics = () if network else config.diagnostics  # the tiny one has no features
    for stage in config.stages.values():
        stage.data.fraction = stage.data.fraction / 10
    result = plasticity_jax.run(config, tmp_path / "plan", model=network)
    assert result["status"] == "finished"
    assert len(result["branches"]) == len(config.stages.tune.branches) == 6


def test_the_sweep_is_one() -> None:
    names: dict = {}
    exec(block("# my_sweep.py"), names)
    found = planner.studies(names["get_config"]())
    assert [len(pack.plans) for pack in found["rates"].packs] == [3, 3] and len(found["rates"].seeds) == 20


def test_files_and_modules_that_are_named_exist() -> None:
    for name in re.findall(r"`((?:plasticity_jax|configs|analysis|launch)/[\w/]*(?:\.py)?)`", README):
        assert (ROOT / name).exists(), f"README.md names {name}"
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), f"README.md links to {name}"


def test_every_module_is_on_the_map() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    modules = {path.stem for path in (ROOT / "plasticity_jax").glob("*.py")} - {"__init__"}
    modules |= {path.parent.name for path in (ROOT / "plasticity_jax").glob("*/__init__.py")} - {"plasticity_jax"}
    assert modules == rows, f"missing {modules - rows}, too many {rows - modules}"


def test_every_config_is_on_the_map() -> None:
    rows = set(re.findall(r"^\| `configs/(\w+)\.py` \|", README, re.MULTILINE))
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert files == rows, f"missing {files - rows}, too many {rows - files}"
