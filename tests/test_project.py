"""What holds for the repository as a whole: packaging, pinned versions, the Makefile, and no trace of a machine."""

import ast
import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import holds_for_all, tree

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
ACCELERATORS = {"cuda12", "cuda13", "tpu"}
AROUND = ("analysis", "configs", "launch")  # beside `plasticity_jax` here, and installed inside it
LONGEST = 300  # lines of a module
VAGUE = {"found", "there", "seen", "own", "each", "known"}  # names that say nothing in a longer scope
BINDS_VAGUE = re.compile(rf"\b(?:{'|'.join(sorted(VAGUE))})\b *(?:[=:,)\]]|in\b|\|=)")
SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
PIN = re.compile(r'([\w.-]+)==([\w.]+)(?:; (python_version (?:<|>=) "3\.12"))?')
# In pieces, so that this file does not match itself.
LOCAL = re.compile(
    rb"(?<![\w.])/(?:wo" + rb"rk|ro" + rb"ot|ho" + rb"me|Us" + rb"ers)/|/tmp" + rb"/w\b|\bsha" + rb"red/"
)

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")


def requirements() -> list[str]:
    extras = [each for name, listed in EXTRAS.items() if name not in ACCELERATORS for each in listed]
    return [each for each in [*PROJECT["project"]["dependencies"], *extras] if not each.startswith("plasticity_jax")]


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def pins() -> list[tuple[str, str, str | None]]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [PIN.fullmatch(line).groups() for line in lines if not line.startswith("#")]


def files() -> list[Path]:
    """Everything that belongs to the repository: all files outside the folders that `.gitignore` names."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split() if line.endswith("/")]

    def walk(folder: Path) -> Iterator[Path]:
        for path in folder.iterdir():
            if path.name == ".git":  # a folder, or in a linked worktree a file that says where that is
                continue
            if path.is_file():
                yield path
            elif not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
                yield from walk(path)

    return sorted(walk(ROOT))


def test_extras_are_the_documented_ones():
    assert set(EXTRAS) == ACCELERATORS | {"analysis", "bench", "tensorboard", "test", "wandb", "xmanager"}


def test_every_dependency_says_what_it_is_for():
    holds_for_all(says_what_it_is_for, [*PROJECT["project"]["dependencies"], *sum(EXTRAS.values(), [])])


def says_what_it_is_for(requirement):
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    where = [i for i, line in enumerate(lines) if f'"{requirement}"' in line]
    assert where
    assert all(lines[i - 1].lstrip().startswith("# ") for i in where)


@pytest.mark.parametrize("marker", ['python_version < "3.12"', 'python_version >= "3.12"'])
def test_every_dependency_is_pinned_once_for_each_python(marker):
    names = [name_of(name) for name, _, condition in pins() if condition in (None, marker)]
    assert len(names) == len(set(names))
    assert {name_of(requirement) for requirement in requirements()} <= set(names)


def test_the_wheel_holds_all_four_packages_inside_one():
    """At the top level they would collide with a user's own `analysis.py`, `configs` or `launch`."""
    folders = {path.parent.relative_to(ROOT) for path in files() if path.suffix == ".py"}
    folders = {folder for folder in folders if folder.parts and folder.parts[0] in ("plasticity_jax", *AROUND)}
    names = {".".join(("plasticity_jax",) * (folder.parts[0] in AROUND) + folder.parts) for folder in folders}
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["packages"] == sorted(names)
    assert setuptools["package-dir"] == {f"plasticity_jax.{name}": name for name in AROUND}
    assert not [folder for folder in folders if not (ROOT / folder / "__init__.py").exists()]


def test_a_module_says_what_it_is_and_stays_short():
    holds_for_all(says_what_it_is_and_is_short, sorted((ROOT / "plasticity_jax").rglob("*.py")))


def says_what_it_is_and_is_short(path):
    assert ast.get_docstring(tree(path)), "begin it with a docstring"
    assert len(path.read_text().splitlines()) <= LONGEST, "split it: one noun per file"


def test_names_in_longer_functions_are_telling():
    holds_for_all(has_telling_names, sorted(path for path in files() if path.suffix == ".py"))


def has_telling_names(path):
    if not BINDS_VAGUE.search(path.read_text()):  # parsing takes long
        return
    scopes = [node for node in ast.walk(tree(path)) if isinstance(node, SCOPES) and lines_of(node) > 3]
    vague = {f"{name} in line {scope.lineno}" for scope in scopes for name in bound(scope) & VAGUE}
    assert not vague, f"say what they are: {', '.join(sorted(vague))}"


def lines_of(scope) -> int:
    """The lines of a function without its signature and docstring, or of a comprehension."""
    body = scope.body[bool(ast.get_docstring(scope)) :] if isinstance(scope, ast.FunctionDef) else [scope]
    return scope.end_lineno - body[0].lineno + 1 if body else 0


def bound(scope) -> set[str]:
    """The names that a scope binds, without those of the scopes inside it."""
    names, left = set(), list(ast.iter_child_nodes(scope))
    while left:
        node = left.pop()
        if isinstance(node, (*SCOPES, ast.ClassDef)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        left += ast.iter_child_nodes(node)
    return names


def test_no_file_hides_a_module_of_python():
    """Modules beside a script that is run by path take precedence over those of Python."""
    scripts = [path for path in files() if path.suffix == ".py" and not path.is_relative_to(ROOT / "plasticity_jax")]
    assert not [path for path in scripts if path.stem in sys.stdlib_module_names]


def test_no_file_names_a_place_on_the_machine_it_was_written_on():
    places = [
        f"{path.relative_to(ROOT)}: {hit[0].decode()}" for path in files() for hit in LOCAL.finditer(path.read_bytes())
    ]
    assert not places


def test_local_places_are_recognised():
    for place in (b"in /ro" + b"ot/x", b"'/ho" + b"me/me/x'", b"see sha" + b"red/x", b"/tmp" + b"/w/x"):
        assert LOCAL.search(place)
    assert not LOCAL.search(b"https://x.org/home/ /tmp/multistage $HOME/.pyenv network/ /tmp/work")


@needs_make
def test_make_asks_for_a_python_that_is_new_enough(tmp_path):
    done = make_environment(tmp_path, "exit 1")
    assert done.returncode
    assert "no Python 3.11 or newer" in done.stderr


@needs_make
def test_make_names_the_package_that_venv_misses(tmp_path):
    done = make_environment(tmp_path, f'case "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"')
    assert done.returncode
    assert "python3-venv" in done.stderr


def make_environment(tmp_path: Path, script: str) -> subprocess.CompletedProcess:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    command = ["make", f"VENV={tmp_path}/venv", f"PYTHON={python}", f"{tmp_path}/venv/bin/python"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
