"""A copy of the repository, with a fault in it for the duration of a block."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.faults import Fault

ROOT = Path(__file__).parents[2]


def make(folder: Path) -> Path:
    """Copy the files that git tracks or would add, as they are in the work tree; compiled programs are shared."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # git still lists a file that was deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (folder / ".cache").symlink_to(ROOT / ".cache")
    return folder


def environment(copy: Path) -> dict[str, str]:
    """The environment of a process in the copy, where its modules take precedence over installed ones."""
    return {**os.environ, "PYTHONPATH": str(copy)}


def imported(copy: Path) -> Path:
    """Where a process in the copy has the package from.

    Raises:
      RuntimeError: from elsewhere, so no fault would be in it.
    """
    code = "import plasticity_jax; print(plasticity_jax.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment(copy), capture_output=True, text=True, check=True
    )
    file = Path(done.stdout.strip())
    if not file.is_relative_to(copy):
        raise RuntimeError(f"tests in {copy} would import {file}")
    return file


def changed(text: str, fault: Fault) -> str:
    """The text of the fault's file with the fault.

    Raises:
      ValueError: what it changes does not occur exactly once.
    """
    count = text.count(fault.old)
    if count != 1:
        raise ValueError(
            f"{fault.name}: {fault.old!r} occurs {count} times in {fault.file}; mend it in tests/mutants/faults.py"
        )
    return text.replace(fault.old, fault.new)


@contextlib.contextmanager
def mutated(copy: Path, fault: Fault) -> Iterator[None]:
    """Context in which the copy has the fault."""
    path = copy / fault.file
    text = path.read_text()
    try:
        _write(path, changed(text, fault))
        yield
    finally:
        _write(path, text)


def _write(path: Path, text: str) -> None:
    """Write without leaving a stale compiled file: Python would reuse that of a source of equal length and second."""
    path.write_text(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
