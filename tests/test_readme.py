"""The Python of every README runs as it is written, and the commands, files and modules that they name exist."""

import contextlib
import math
import re
from pathlib import Path
from typing import Any

import pytest

import plasticity_jax
from plasticity_jax.launch import planner
from plasticity_jax.storage import metrics
from tests.runner.test_protocols import Six

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in (
        ".",
        "plasticity_jax",
        "configs",
        "analysis",
        "analysis/results",
        "analysis/results_medium",
        "launch",
        "tests",
    )
    for path in [ROOT / folder / "README.md"]
}
LONGEST = 180  # lines of the first page
BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


def block(word: str) -> str:
    """The one block of Python that contains `word`."""
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The namespace after the README's example with an own data set, network, reset and diagnostic."""
    names: dict = {"directory": tmp_path_factory.mktemp("readme")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["directory"])
        exec(block("class Net"), names)
    return names


@pytest.mark.slow
def test_the_own_pieces_are_used(example: dict) -> None:
    assert example["result"]["status"] == "finished"
    assert {run["branch"] for run in example["result"]["runs"]} == {"fresh", "pretrain+tune"}
    assert example["params"]["head"]["kernel"].shape == (16, 3)
    assert example["model"].__class__.__name__ == "Net"
    table = (example["directory"] / "runs/own/main/tune/metrics.jsonl").read_text()
    assert '"sparsity"' in table and '"weight_norm/hidden"' in table


@pytest.mark.slow
def test_saved_metrics_are_read_as_shown(example: dict, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(example["directory"])
    names: dict = {}
    exec(block("analysis.load").replace("runs/demo", "runs/own"), names)
    printed = capsys.readouterr().out
    assert "fresh" in printed and "pretrain+tune" in printed
    documented = "pack seed branch stage status epoch step metric value run".split()
    assert set(documented) <= set(names["table"].columns)


@pytest.mark.slow
def test_a_study_is_read_as_shown(example: dict, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(example["directory"])
    exec(block("study.plot").replace("runs/demo", "runs/own"), names := {})
    assert names["study"].result == example["result"] | names["study"].result
    assert names["study"].claims() in capsys.readouterr().out


def test_saved_metrics_are_read_as_shown_without_runs_that_diverged(tmp_path, monkeypatch) -> None:
    """pandas would take the last existing number, which is from the start or the middle of training."""
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


def my_plan() -> Any:
    """The config of the README's own plan."""
    names: dict = {}
    exec(block("# my_plan.py"), names)
    return names["get_config"]()


def test_the_plan_is_one(tmp_path: Path, capsys) -> None:
    assert plasticity_jax.run(my_plan(), tmp_path / "plan", dry_run=True) == {}
    assert "programs to compile" in capsys.readouterr().out


NETWORKS = [pytest.param(Six(10), id="tiny"), pytest.param(None, id="its-own")]


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
def test_the_plan_runs(network: Any, tmp_path: Path) -> None:
    config = my_plan()
    config.seeds, config.strategy = (0,), "loop"  # which compiles the fewest programs
    config.diagnostics = () if network else config.diagnostics  # the tiny network has no features
    for stage in config.stages.values():
        stage.data.fraction = stage.data.fraction / 10
    result = plasticity_jax.run(config, tmp_path / "plan", model=network)
    assert result["status"] == "finished"
    assert len(result["branches"]) == len(config.stages.tune.branches) == 6


def test_the_sweep_is_one() -> None:
    names: dict = {}
    exec(block("# my_sweep.py"), names)
    studies = planner.studies(names["get_config"]())
    assert [len(pack.plans) for pack in studies["rates"].packs] == [3, 3] and len(studies["rates"].seeds) == 20


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = PAGES[page]
    for name in re.findall(r"`((?:plasticity_jax|configs|analysis|launch|tests)/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
    for name in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert ((ROOT / page).parent / name).exists(), f"{page} links to {name}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page: str) -> None:
    text = PAGES[page]
    for module in re.findall(r"python -m ((?:plasticity_jax|analysis|launch|tests)[\w.]*)", text):
        base = ROOT / module.replace(".", "/")
        assert base.with_suffix(".py").exists() or (base / "__main__.py").exists(), f"{page}: python -m {module}"
    for config in re.findall(r"configs/(\w+)\.py", text):
        assert (ROOT / "configs" / f"{config}.py").exists(), f"{page}: configs/{config}.py"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([\w-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"


def test_the_first_page_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= LONGEST


def test_every_module_is_in_the_layout() -> None:
    layout = PAGES["plasticity_jax/README.md"].split("## ")[0]
    named = set(re.findall(r"`(\w+)`", layout))
    files = {path.stem for path in (ROOT / "plasticity_jax").rglob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "plasticity_jax").glob("*/__init__.py")}
    missing = (files | packages) - named
    assert not missing, f"add {sorted(missing)} to the table of plasticity_jax/README.md"


def test_what_is_added_has_the_place_that_is_named() -> None:
    """The files of each row exist, and define the dicts that it names."""
    table = PAGES["plasticity_jax/README.md"].split("## Where to add")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (an? [\w ]+) \| .* \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) >= 10
    for what, where in rows:
        files = [ROOT / name for name in re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", where)]
        files = [file if file.exists() else ROOT / "plasticity_jax" / file.relative_to(ROOT) for file in files]
        assert files and all(file.exists() for file in files), what
        for name in re.findall(r"`([A-Z]+)`", where):
            holders = [file / "__init__.py" if file.is_dir() else file for file in files]
            assert any(re.search(rf"^{name}\b.* = ", file.read_text(), re.MULTILINE) for file in holders), (what, name)


def test_every_config_is_on_the_first_page() -> None:
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    named = set(re.findall(r"`configs/(\w+)\.py`", PAGES["README.md"]))
    assert files == named, f"missing {files - named}, too many {named - files}"
