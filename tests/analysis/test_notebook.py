"""The notebook that the README opens in Colab: it runs as it is, is kept clean, and installs what the README names.

Only the numbers of seeds and epochs are changed, as its second cell invites to.
"""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement

from plasticity_jax import analysis
from tests.support import notebook as execute

ROOT, PATH = Path(__file__).parents[2], execute.PATH
COLAB = "https://colab.research.google.com/github/"
SHORT = 'SEEDS, EPOCHS, DIRECTORY = 3, 10, "runs/multistage_short"'


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PATH, as_version=4)


def cell(notebook, name):
    (found,) = [cell for cell in notebook.cells if cell.id == name]
    return found


def test_it_is_kept_clean(notebook):
    nbformat.validate(notebook)
    assert json.loads(PATH.read_text())["nbformat_minor"] == 5
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(each.metadata) <= {"tags"} for each in notebook.cells)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_it_shows_what_came_out_of_one_run_from_top_to_bottom(notebook):
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert [each.execution_count for each in code] == list(range(1, len(code) + 1))
    assert not [output for each in code for output in each.outputs if output.output_type == "error"]
    assert pictures(cell(notebook, "figures")) == 2 and pictures(cell(notebook, "stages")) > 0
    assert "fresh - pretrain+tune: " in printed(cell(notebook, "gap"))
    assert "reproduced" in printed(cell(notebook, "claims"))
    assert PATH.stat().st_size < 2**20


def test_it_is_of_the_repository_that_the_readme_names(notebook):
    (address,) = re.findall(r"^\[colab\]: (\S+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    repository = re.fullmatch(rf"{COLAB}([\w-]+/[\w-]+)/blob/main/{PATH.relative_to(ROOT)}", address)[1]
    assert f'REPOSITORY = "https://github.com/{repository}"' in cell(notebook, "install").source
    assert set(re.findall(rf"{COLAB}[^)\s]*", cell(notebook, "title").source)) == {address}


@pytest.mark.parametrize("installed", [True, False])
def test_it_installs_the_lab_only_where_there_is_none(notebook, installed, monkeypatch):
    names = {"get_ipython": lambda: SimpleNamespace(run_line_magic=lambda *line: ran.append(line))}
    ran = []
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(TransformerManager().transform_cell(cell(notebook, "install").source), names)
    assert len(ran) == (not installed)
    for magic, line in ran:
        options, asked, _ = line.format(**names).split('"')  # IPython replaces the names in braces
        assert (magic, options.split()[0]) == ("pip", "install")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert Requirement(asked).url == f"git+{names['REPOSITORY']}@v{project['version']}"
        assert Requirement(asked).name == project["name"]
        assert Requirement(asked).extras == {"analysis"} <= project["optional-dependencies"].keys()


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.mark.long
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # none of the user's settings or kernels
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    ran = nbformat.from_dict(notebook)
    ran.cells.insert(ran.cells.index(cell(ran, "parameters")) + 1, nbformat.v4.new_code_cell(SHORT))
    execute.run(ran, tmp_path)

    (directory,) = Path("runs").glob("multistage_*")
    result, study = analysis.load_result(directory), analysis.read(directory)
    assert result["gap"]["n"] == 3
    assert f"fresh - pretrain+tune: {result['gap']['mean']:.1f} points" in printed(cell(ran, "gap"))
    assert pictures(cell(ran, "figures")) == len(study.plot()) > 0
    assert printed(cell(ran, "claims")).strip() == study.claims().strip()
    curve = study.table[(study.table.run == "pretrain+tune/seed2") & (study.table.metric == "test_accuracy")]
    assert f"pretrain+tune/seed2: {curve.value.iloc[-1]:.2f} %" in printed(cell(ran, "load"))
    assert "metric" in cell(ran, "table").outputs[-1].data["text/html"]
    assert "pretrain+tune" in cell(ran, "pivot").outputs[-1].data["text/html"]
    assert pictures(cell(ran, "plot")) == 1
    stages = analysis.read("runs/learning_stages")
    assert pictures(cell(ran, "stages")) == len(stages.plot()) > 0
    assert stages.claims().strip() in printed(cell(ran, "stages"))
    noise = [output.text for each in ran.cells for output in each.get("outputs", []) if output.get("name") == "stderr"]
    assert not [text for text in noise if "Warning" in text]
