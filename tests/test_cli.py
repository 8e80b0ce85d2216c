"""One command for all: `plasticity`, from any directory."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from plasticity_jax import cli

ROOT = Path(__file__).parents[1]


def test_it_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"plasticity": "plasticity_jax.cli:main"}


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_help_names_all_commands_and_configs(words, capsys):
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*cli.COMMANDS, "multistage", "autodecay"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figurs"], "error: 'figurs' is not a command; did you mean figures?"),
        (["xyz"], "error: 'xyz' is not a command; choose one of run, figures,"),
        (
            ["run", "multistag:digits"],
            "error: 'multistag:digits' is neither a file nor a shipped config; choose one of",
        ),
        (["run", "base"], "error: 'base' is neither"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_configs_are_found_by_name_and_by_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.config_file("multistage:digits") == f"{ROOT / 'configs' / 'multistage.py'}:digits"
    (tmp_path / "multistage").touch()
    (tmp_path / "mine.py").touch()
    assert cli.config_file("multistage:digits") == "multistage:digits"
    assert cli.config_file("mine.py:a=b") == "mine.py:a=b"
    assert cli.config_file("theirs.py") is None


def installed(site: Path) -> Path:
    """The modules of the lab laid out as by a wheel."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    beside = setuptools["package-dir"]
    for package in setuptools["packages"]:
        outer = next((name for name in beside if f"{package}.".startswith(f"{name}.")), "")
        folder = (beside.get(outer, "") + package.removeprefix(outer)).replace(".", "/")
        (site / package.replace(".", "/")).mkdir(parents=True)
        for file in (ROOT / folder).glob("*.py"):
            shutil.copy(file, site / package.replace(".", "/"))
    return site


@pytest.mark.parametrize(
    "checkout", [pytest.param(True, id="checkout"), pytest.param(False, id="installed", marks=pytest.mark.slow)]
)
def test_modules_of_the_working_directory_do_not_take_the_place_of_its_own(checkout, tmp_path):
    """Of an installed lab, not even if Python looks in that directory first, as for `python -m`."""
    for name in ("analysis", "configs", "launch", *["plasticity_jax", "pandas", "scipy"] * checkout):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the user')\n")
    source = "from plasticity_jax.configs import multistage\nget_config = multistage.get_config\n"
    (tmp_path / "own.py").write_text(source)
    code = (
        "import sys; from plasticity_jax.cli import main\n"
        "calls = [['collect', 'nowhere', '--out=x'], ['status', 'nowhere'], ['run', 'own.py:digits', '--nonsense']]\n"
        "calls += [['sweep', 'multistage:digits', '--nonsense']]\n"
        "for call in calls:\n"
        "    try: print(main(call))\n"
        "    except SystemExit as end: print(end.code)\n"
    )
    paths = [ROOT] if checkout else [tmp_path, installed(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "of the user" not in done.stdout + done.stderr, done.stderr
    assert "nowhere" in done.stdout + done.stderr and done.stderr.count("nonsense") == 2
