"""Data flow one way: a module imports only from the layers below its own, so there is no circle either."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "plasticity_jax"

# The lowest first.
LAYERS = [
    {"errors", "strict_json", "own_code"},
    {
        "signals",
        "conditions",
        "memory",
        "machine",
        "peers",
        "detectors",
        "graded",
        "digits",
        "legacy",
        "locks",
        "output",
        "paths",
    },
    {
        "cache",
        "stages",
        "names",
        "line",
        "units",
        "network",
        "trees",
        "records",
        "workdir",
        "results",
        "convolution",
        "pooling",
        "cifar",
        "sampling",
        "checks",
        "autodecay",
    },
    {
        "legs",
        "description",
        "labels",
        "prepared",
        "pools",
        "patches",
        "optim",
        "checkpoint",
        "tensorboard",
        "runs",
        "clock",
    },
    {"layers", "datasets", "state", "grid", "commandline", "diagnostics"},
    {"wide_resnet", "gradient", "resets"},
    {"models", "train"},
    {"programs", "timetable", "schema", "environment"},
    {"config", "scored", "saved"},
    {"progress", "summary"},
    {"lab", "autotune", "drafts"},
    {"measure", "pace"},
    {"walk", "room"},
    {"experiment"},
    {"__init__", "main", "cost"},
]

# What the other packages may import of this repository.
JAX_FREE = "errors names description workdir commandline config line units signals machine peers strict_json"
FOR_ANALYSIS = "description errors records results stages legs workdir strict_json output paths".split()
FOR_LAUNCH = f"{JAX_FREE} locks output paths stages legs experiment cost datasets".split()
ALLOWED = {
    "configs": {"configs.base", "configs.presets", f"{PACKAGE}.errors"},  # and in `paper` all studies
    "analysis": {"analysis", "launch.jobs", *(f"{PACKAGE}.{name}" for name in FOR_ANALYSIS)},
    "launch": {"launch", *(f"{PACKAGE}.{name}" for name in FOR_LAUNCH)},
}

MODULES = sorted(path.relative_to(ROOT / PACKAGE).with_suffix("") for path in (ROOT / PACKAGE).rglob("*.py"))
OTHERS = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, inside: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, `inside` functions too; `from a import b` gives a.b if that is a file."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write imports in full"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                base = ROOT / name.replace(".", "/")
                yield name if base.is_dir() or base.with_suffix(".py").exists() else str(node.module)


def layer(module: str) -> int:
    """The layer of `errors`, `__init__`, or of a module in a folder: that of the folder."""
    found = [i for i, names in enumerate(LAYERS) if module.split(".")[0] in names]
    assert len(found) == 1, (
        f"add {PACKAGE}/{module}.py to LAYERS in tests/test_layers.py, in the lowest layer that fits"
    )
    return found[0]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_from_lower_layers_only(module):
    name = ".".join(module.parts)
    for imported in imports(ROOT / PACKAGE / module.with_suffix(".py")):
        first, _, rest = imported.partition(".")
        assert first not in ALLOWED, f"{PACKAGE} must not depend on {first}"
        if first == PACKAGE and rest.split(".")[0] != name.split(".")[0]:
            below = rest or "__init__"
            assert layer(below) < layer(name), f"{name} (layer {layer(name)}) imports {below} (layer {layer(below)})"
    layer(name)


def test_the_detectors_need_nothing_of_this_project():
    needed = [*imports(ROOT / PACKAGE / "detectors.py"), *imports(ROOT / PACKAGE / "__init__.py", inside=False)]
    assert not [name for name in needed if name.startswith(PACKAGE)]


def test_layers_hold_no_module_that_is_gone():
    there = {module.parts[0] for module in MODULES}
    assert {name for names in LAYERS for name in names} <= there, "take it out of LAYERS in tests/test_layers.py"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packages_around_it_stay_outside(path):
    package = path.relative_to(ROOT).parts[0]
    eager = set(imports(path, inside=False))
    for imported in imports(path):
        first = imported.split(".")[0]
        if (
            first not in {PACKAGE, *ALLOWED}
            or imported in ALLOWED[package]
            or first == package != "configs"
            or path.stem == "paper"
        ):
            continue
        lazy = package == "analysis" and imported == PACKAGE and imported not in eager
        assert lazy, f"{path.relative_to(ROOT)} must not import {imported}"


def test_checking_a_config_needs_no_jax():
    """Nor do the commands before their flags are right: tests/test_commands.py."""
    code = f"import sys, {PACKAGE}.config; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
