"""Every command that a README or the docstring of a module shows runs as it is written.

Training commands only print their plan or stop at once, sweeps have given prices, and data sets that would have to be
downloaded are black images of the same shapes; figures, claims and pages are of a study with given numbers.
"""

import ast
import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from plasticity_jax import cli, lines
from plasticity_jax.analysis import reproduce
from plasticity_jax.configs import multistage, remedies
from plasticity_jax.data import datasets
from plasticity_jax.launch import prices, sweep
from tests.support import swept, synthetic
from tests.support.commands import ROOT, call

SHOWN = re.compile(r"^[ ]{4,}((?:python -m (?:plasticity_jax|analysis|launch)|plasticity )[^#\n]*[^#\s])", re.MULTILINE)
STANDS_FOR = {"DIR": "runs/done", "OUT": "out", "FOLDER": "out", "SWEEP": "runs/sweep"}
STANDS_FOR |= {"FILE": "configs/multistage.py:digits", "NAME_OR_INDEX": "0"}
TRAINS = ("main", "launch.sweep", "launch.local", "launch.slurm")  # in plasticity_jax
MISSING = 75  # what a status says of a sweep that has not finished, and what was stopped
UNFINISHED = ("launch.status", "analysis.reproduce")
DOWNLOADED = {"cifar10": 10, "cifar100": 100, "svhn_cropped": 10}  # classes of those that the configs name


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of every README and every module's docstring."""
    for folder in (".", "plasticity_jax", "configs", "analysis", "launch"):
        for path in sorted((ROOT / folder).glob("README.md" if folder == "." else "**/*")):
            if path.name == "README.md":
                yield str(path.relative_to(ROOT)), path.read_text()
            if path.suffix == ".py":
                yield str(path.relative_to(ROOT)), ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""


def words(line: str) -> list[str]:
    """The words of a command, without those in brackets, and with a value for each word in capitals."""
    plain = re.sub(r"\[[^\]]*\]", "", re.split(r" {3,}", line)[0])
    return shlex.split(re.sub(r"\b[A-Z_]{3,}\b(\.\.\.)?", lambda found: STANDS_FOR[found[0]], plain))


COMMANDS = [(file, found[1]) for file, text in texts() for found in SHOWN.finditer(text)]
CASES = [
    pytest.param(line, id=f"{file}: {line}", marks=[] if Path(file).parts[0] == "README.md" else pytest.mark.long)
    for file, line in dict.fromkeys(COMMANDS)
]


def test_all_commands_are_shown_somewhere():
    lines = [line for _, line in COMMANDS]
    shown = {re.split(r" +", line)[2] for line in lines if line.startswith("python")}
    commands = {module.removeprefix("plasticity_jax.") for module, _ in cli.COMMANDS.values()}
    assert commands - {word.removeprefix("plasticity_jax.") for word in shown} <= {
        "analysis.verify",
        "analysis.report.report",
    }
    assert len(CASES) > 50


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A directory like a checkout, with a finished study at every path that a command reads, and a planned sweep."""
    here = tmp_path_factory.mktemp("checkout")
    (here / "configs").symlink_to(ROOT / "configs")
    study = synthetic.study(multistage.get_config("digits"), lambda *of: 50.0 if of[3].endswith("accuracy") else None)
    for name in ("done", "figure1", "a", "demo"):
        (synthetic.write(study, here / "runs" / name) / "environment.json").write_text('{"python": "3"}')
    for name in ("half", "pixels"):
        config = remedies.get_config(f"digits,protocol={name}")
        given = synthetic.study(
            config, lambda *of: 50.0, metrics=("test_accuracy", "validation_accuracy", "train_accuracy")
        )
        synthetic.write(given, here / "runs" / f"{name}-digits")
    for name in ("sweep", "paper", "resets-digits"):
        swept.planned(here / "runs" / name, swept.config())
    for path in sorted((ROOT / "analysis").glob("results*/*/")):
        (here / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (here / path.relative_to(ROOT)).symlink_to(path)
    return here


@functools.cache
def black(name: str) -> datasets.Dataset:
    """A data set of black images with the size and shapes of the one that would be downloaded."""
    images, labels = np.zeros((50_000, 32, 32, 3), np.uint8), np.arange(50_000) % DOWNLOADED[name]
    return datasets.from_arrays(name, images, labels, images[:10_000], labels[:10_000])


@pytest.fixture
def offline(monkeypatch):
    for name in DOWNLOADED:
        monkeypatch.setitem(datasets.SOURCES, name, functools.partial(black, name))


def module_of(line: str) -> tuple[str, list[str]]:
    """(module inside plasticity_jax, its arguments) of a command, changed so that it runs as briefly as possible."""
    first, *rest = words(line)
    if first == "plasticity":
        module, rest = cli.COMMANDS[rest[0]][0], rest[1:]
        rest = [f"--config={cli.config_file(rest[0])}", *rest[1:]] if module.endswith(TRAINS) else rest
    else:
        module, rest = rest[1], rest[2:]
    module = module.removeprefix("plasticity_jax.")
    if module in TRAINS and any(word.startswith("--config=") for word in rest):
        rest += [] if "--dry_run" in rest else ["--dry_run"]
        rest += [] if module == "main" else ["--images_per_second=1000", "--memory_gb=16"]
    if (
        module == "launch.local" and "--dry_run" in rest
    ):  # it lets another process plan, which is given all words but its own
        flags = ("--parallel=", "--tries=")
        module, rest = "launch.sweep", [word for word in rest if not word.startswith(flags)]
    return module, rest


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("line", CASES)
def test_it_runs(line, checkout, offline, capfd, monkeypatch, tmp_path):
    module, rest = module_of(line)
    if module in TRAINS and "--dry_run" in rest:
        rest = [f"--workdir={tmp_path}/new" if word.startswith("--workdir=") else word for word in rest]
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", str(tmp_path))  # so that SLURM is never found
    for method in ("__call__", "unmeasured"):  # otherwise all shapes would be compiled
        monkeypatch.setattr(prices.Market, method, lambda _, *of: swept.price(*of))
    monkeypatch.setattr(reproduce, "train", lambda directory: MISSING)
    monkeypatch.setattr(lines, "connectivity", lambda *ends, images: {"loss": [2.0, 1.0]})  # there are no networks
    rest = [str(path) for word in rest for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    command = importlib.import_module(f"plasticity_jax.{module}")
    if hasattr(command, "__path__"):
        command = importlib.import_module(f"plasticity_jax.{module}.__main__")
    done = call(command.main, *rest, capture=capfd, directory=checkout)
    assert not done.status or (done.status == MISSING and module in UNFINISHED), done.err
    assert done.out or done.err or module == "analysis.reproduce"


def test_a_command_that_is_wrong_is_noticed(checkout, capsys):
    assert call(sweep.main, "--config=configs/multistag.py", "--dry_run", capture=capsys, directory=checkout).status
