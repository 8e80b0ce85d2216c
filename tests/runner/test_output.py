"""A reader that closes its pipe ends no command and changes no exit status."""

import ast
import contextlib
import errno
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from plasticity_jax.runner.console import Line

ROOT = Path(__file__).parents[2]
ELSEWHERE = {  # the command of such a file is in another module
    "analysis/claims/__main__.py": "analysis/verify.py",
    "analysis/report/__main__.py": "analysis/report/report.py",
}

# Prints much before and after its reader has ended, and has its own exit status.
PRINT = """
import os, sys, time
from plasticity_jax.runner import output
output.outlive_readers()
for _ in range(3):
    print("x" * 100_000)
    print("y" * 100, file=sys.stderr, flush=True)
    time.sleep(0.05)
open(sys.argv[1], "w").write("done")
print("last")
sys.exit(75)
"""


@contextlib.contextmanager
def pipe():
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def terminal():
    """A terminal that was closed."""
    window, screen = pty.openpty()
    os.close(window)
    yield screen
    os.close(screen)


@contextlib.contextmanager
def full_disk():
    with open("/dev/full", "w") as full:
        yield full.fileno()


@pytest.mark.parametrize("gone", [pipe, terminal])
def test_a_reader_that_is_gone_ends_nothing(gone, tmp_path):
    with gone() as where:
        call = [sys.executable, "-c", PRINT, str(tmp_path / "file")]
        assert subprocess.run(call, cwd=ROOT, stdout=where, stderr=where).returncode == 75
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_what_is_read_arrives_in_order(options):
    code = "from plasticity_jax.runner import output; import sys; output.outlive_readers(); output.outlive_readers()\n"
    code += "print('größe'); print('two', file=sys.stderr); print('three', end='', flush=True)"
    call = [sys.executable, *options, "-c", code]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, check=True, env=os.environ | {"PYTHONUTF8": "1"})
    assert (done.stdout.decode(), done.stderr) == ("größe\nthree", b"two\n")


def test_other_errors_of_writing_stay_errors():
    code = "from plasticity_jax.runner import output; output.outlive_readers(); print('x', flush=True)"
    with full_disk() as where:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=where, stderr=subprocess.PIPE, text=True)
    assert done.returncode and os.strerror(errno.ENOSPC) in done.stderr


@pytest.mark.parametrize("gone", [pipe, terminal, full_disk])
def test_progress_outlives_its_reader_by_itself(gone):
    with gone() as where:
        stream = open(os.dup(where), "w")
        line = Line(stream)
        for _ in range(3):
            line.write("progress")
            line.note("a note")
        with pytest.raises(OSError):
            stream.close()


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("plasticity_jax", "launch", "analysis", "tests/faults", "tests/benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "peer.py"  # which answers a program, not a reader
        and ('if __name__ == "__main__":' in path.read_text() or "xmanager" in path.read_text().split("import", 1)[0])
        and path.relative_to(ROOT).as_posix() not in ELSEWHERE
    ]
    + [ROOT / path for path in ELSEWHERE.values()],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_command_outlives_its_readers(path):
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert {"output.outlive_readers", "commandline.start"} & {*calls}  # the latter does it


def test_a_command_that_only_prints_ends_well_without_its_reader(tmp_path):
    (tmp_path / "sweep.json").write_text('{"version": 1, "jobs": []}')
    with pipe() as where:
        call = [sys.executable, "-m", "launch.status", str(tmp_path)]
        assert subprocess.run(call, cwd=ROOT, stdout=where, stderr=subprocess.PIPE).returncode == 0
