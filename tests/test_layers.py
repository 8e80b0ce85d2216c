"""The map of the code: packages stand on floors, and a module imports from its own package or from floors below.

plasticity_jax   as in `FLOORS`; within a package no two modules wait for each other
configs          plain Python: of the lab only its errors
analysis         reads files: of the lab only what is written in them, and never jax
launch           starts the lab: loads jax only where a command has to know what a study costs
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import holds_for_all, tree

ROOT = Path(__file__).parent.parent
PACKAGE = "plasticity_jax"
AROUND = ("analysis", "configs", "launch")  # beside it here, and installed inside it

# The lowest floor first; packages on one floor do not import each other.
FLOORS = (
    ("errors",),
    ("lookup", "strict_json", "sharding", "target"),
    ("config",),  # a study, and how a config file becomes one; no jax
    ("models",),
    ("data", "diagnostics"),
    ("training",),  # ONE run
    ("parallel",),  # many runs, devices and processes
    ("storage",),  # what is kept on disk
    ("runner",),  # the loop over stages
    ("profiling",),  # memory, time, the fastest strategy
    ("study_config",),
    ("experiment",),
    ("main", "__init__", "cli", "lines"),
)

# What the packages around it may import of it.
JAX_FREE = (
    "errors strict_json config.names config.parse config.paths config.plan config.restore config.spec parallel.cpu "
    "parallel.multihost runner.commandline runner.console runner.output runner.signals runner.units storage.workdir"
).split()
FOR_ANALYSIS = (
    "errors strict_json config.columns config.paths config.plan config.restore config.spec runner.output "
    "storage.metrics storage.results storage.workdir"
).split()
FOR_LAUNCH = [
    *JAX_FREE,
    *"data.datasets experiment profiling.cost storage.environment storage.locks study_config".split(),
]
ALLOWED = {
    "configs": {"configs.base", "configs.presets", "configs.treatments", "errors"},  # and in `paper` all studies
    "analysis": {"analysis", "launch.jobs", *FOR_ANALYSIS},
    "launch": {"launch", "__init__", *FOR_LAUNCH},  # where the package is
}

MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
OTHERS = sorted(path for package in AROUND for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """`training.step` for plasticity_jax/training/step.py, and `training` for the `__init__.py` beside it."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)


def file_of(module: str) -> Path:
    """Where a module or package of the lab lies, without `.py`: those around `plasticity_jax` lie beside it."""
    parts = module.split(".")
    return ROOT.joinpath(*(parts[1:] if parts[0] == PACKAGE and parts[1:2] and parts[1] in AROUND else parts))


def imports(path: Path, inside: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, also `inside` functions; `from a import b` gives a.b if that is a file."""
    for node in ast.walk(tree(path)) if inside else tree(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write imports in full"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                base = file_of(name)
                yield name if base.is_dir() or base.with_suffix(".py").exists() else str(node.module)


def own_imports(path: Path) -> list[str]:
    """The modules of the lab that a module imports, as `training.step`."""
    found = [name for name in imports(path) if name.partition(".")[0] == PACKAGE]
    return [name.partition(".")[2] or "__init__" for name in found]


def floor(module: str) -> int:
    """The floor of a module: that of its package."""
    floors = [i for i, names in enumerate(FLOORS) if module.partition(".")[0] in names]
    assert len(floors) == 1, f"give {PACKAGE}/{module} a floor in FLOORS of tests/test_layers.py"
    return floors[0]


def test_a_module_imports_from_floors_below():
    holds_for_all(imports_from_floors_below, MODULES)


def imports_from_floors_below(path):
    module = name_of(path)
    for imported in imports(path):
        assert imported.partition(".")[0] not in AROUND, (
            f"write {PACKAGE}.{imported}, which is there without a checkout"
        )
    for imported in own_imports(path):
        if (module, imported) == ("cli", "configs"):
            continue  # it says which there are
        assert imported.partition(".")[0] not in AROUND, f"{PACKAGE} must not depend on {imported}"
        if imported.partition(".")[0] != module.partition(".")[0]:
            assert floor(imported) < floor(module), f"{module} must not import {imported}, which stands above it"
    floor(module)


def test_no_two_modules_wait_for_each_other():
    graph = {name_of(path): {name for name in own_imports(path) if name != name_of(path)} for path in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # or a CycleError that names them


def test_no_floor_is_empty():
    packages = {path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0] for path in MODULES}
    assert {name for names in FLOORS for name in names} == packages


def test_the_detectors_need_nothing_of_this_project():
    files = [ROOT / PACKAGE / name for name in ("__init__.py", "training/__init__.py")]
    needed = [name for path in files for name in imports(path, inside=False)]
    needed += imports(ROOT / PACKAGE / "training" / "detectors.py")
    assert not [name for name in needed if name.startswith(PACKAGE)]


def test_the_packages_around_it_stay_outside():
    holds_for_all(stays_outside, OTHERS)


def stays_outside(path):
    package = path.relative_to(ROOT).parts[0]
    for imported in imports(path):
        assert imported.partition(".")[0] not in AROUND, (
            f"write {PACKAGE}.{imported}, which is there without a checkout"
        )
    for imported in own_imports(path):
        inside = imported.partition(".")[0] == package and (package != "configs" or path.stem == "paper")
        assert inside or imported in ALLOWED[package], f"{path.relative_to(ROOT)} must not import {imported}"


def test_checking_a_config_needs_no_jax():
    """Nor does any command before its flags are valid: tests/test_commands.py."""
    code = f"import sys, {PACKAGE}.study_config; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


IMPORT = re.compile(r"from ((?:plasticity_jax|launch|analysis)[\w.]*) import (\w+)")


def test_code_in_texts_names_modules_that_exist():
    """In tests that start a process, in READMEs and in the notebook."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("analysis/*.ipynb")]
    texts = {path: path.read_text() for path in pages}
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "launch").rglob("*.py")]:
        nodes = ast.walk(tree(path))
        texts[path] = "\n".join(
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
    for path, text in texts.items():
        for module, name in IMPORT.findall(text):
            base = file_of(module)
            file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            where = f"{path.relative_to(ROOT)}: from {module} import {name}"
            assert file.is_file(), where
            inside = (base / name).is_dir() or (base / f"{name}.py").is_file()
            assert inside or re.search(rf"\b{name}\b", file.read_text()), where
