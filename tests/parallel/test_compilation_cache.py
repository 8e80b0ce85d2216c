"""The second start loads the programs that the first one compiled: the same bits, without a warning or a crash."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.data import batches
from plasticity_jax.errors import Preempted
from plasticity_jax.parallel import compilation_cache, programs
from plasticity_jax.storage import workdir
from tests.support import small

ROOT = Path(__file__).parents[2]
COMPLAINT = re.compile(r"^[EWF]\d{4} |warning|error|note:", re.IGNORECASE)  # the first: a line of XLA's log
STUDY = """
import json, sys
from plasticity_jax.parallel import compilation_cache
from plasticity_jax.storage import workdir
from tests.support import small
with compilation_cache.counting() as count:
    result = small.run(small.config(seeds=(0,)), sys.argv[1])
status = workdir.read_json(sys.argv[1] + "/status.json")
print(json.dumps([count.programs, count.loaded, status["compilations"], status["from_cache"], small.hashes(result)]))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the study in its own process; the numbers above, and all lines of warnings and errors."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def begin(workdir: str) -> tuple[list, list[str]]:
        done = subprocess.run(
            [sys.executable, "-W", "always::UserWarning", "-c", STUDY, str(tmp_path / workdir)],
            capture_output=True,
            text=True,
            check=True,
        )
        *said, numbers = (done.stderr + done.stdout).splitlines()
        return json.loads(numbers), [line for line in said if COMPLAINT.search(line)]

    return begin


def entries(home: Path) -> list[Path]:
    return sorted((home / "plasticity_jax" / "compiled").glob("*/*-cache"))


@pytest.mark.long
def test_a_second_start_compiles_nothing_and_gives_the_same_bits(start, tmp_path):
    (asked, loaded, programs, from_cache, hashes), complaints = start("cold")
    assert loaded == from_cache == 0 < programs <= asked
    assert len(entries(tmp_path / "home")) == asked and not complaints
    warm = [asked, asked, programs, programs, hashes]
    assert start("warm") == (warm, [])

    for entry in entries(tmp_path / "home"):  # as left by a process that is killed while it writes
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    assert start("broken") == ([asked, 0, programs, 0, hashes], [])
    assert start("mended") == (warm, [])


@pytest.mark.long
def test_a_study_without_its_folder_is_trained_and_costs_one_note(start, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    (asked, loaded, *_), (note,) = start("study")
    assert loaded == 0 < asked
    assert note.startswith("note: ") and str(tmp_path / "home") in note


@pytest.fixture
def settings():
    """The defaults of jax, restored after a test that changes them."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_folder_that_cannot_be_written_costs_one_note(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").write_text("a file where the folder should be")
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.turn_on()
    note, nothing = capsys.readouterr()
    assert note.startswith("note: ") and str(tmp_path / "home") in note and note.count("\n") == 1 and not nothing
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("name, value", [("compilation_cache_dir", "/elsewhere"), ("enable_compilation_cache", False)])
def test_what_the_user_chose_stays(name, value, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update(f"jax_{name}", value)
    folder = jax.config.jax_compilation_cache_dir
    compilation_cache.turn_on()
    assert jax.config.jax_compilation_cache_dir == folder
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_write_the_programs_that_are_kept(settings, tmp_path, monkeypatch):
    """Cached programs are machine code: whoever may write them can execute code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.turn_on()
    folders = [path for path in (tmp_path / "plasticity_jax" / "compiled").iterdir() if path.is_dir()]
    assert folders and not any(folder.stat().st_mode & 0o077 for folder in folders)


def test_folders_differ_by_machine(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = set()
    for cpu, threads in (("flags : avx2", 2), ("flags : avx2 avx512f", 2), ("flags : avx2", 4)):
        monkeypatch.setattr(Path, "read_text", lambda _, cpu=cpu: f"cpu MHz : 1\n{cpu}\n\nflags : of the next")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, threads=threads: range(threads), raising=False)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.turn_on()
        folders.add(jax.config.jax_compilation_cache_dir)
    assert len(folders) == 3 and all(Path(folder).parent.parent.parent == tmp_path for folder in folders)


def test_the_folder_stays_within_its_limit(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compilation_cache, "LIMIT", 250)
    old = tmp_path / "plasticity_jax" / "compiled" / "jaxlib-of-old"
    old.mkdir(parents=True)
    for age, name in enumerate(["new", "middle", "oldest"]):
        (old / name).write_bytes(bytes(100))
        os.utime(old / name, (1e9 - age, 1e9 - age))
    os.utime(old / "oldest", (2e9, 1e9))  # written first, but read since
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.turn_on()
    assert {path.name for path in old.iterdir()} == {"new", "oldest"}


def test_programs_are_counted_while_inside(tmp_path):
    unheard = random.random()  # so that no earlier run of the tests has left this program in the folder
    with compilation_cache.counting() as count:
        jax.jit(lambda x: x + unheard).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()
    assert (count.programs, count.loaded) == (1, 0)
    with compilation_cache.counting(threading.get_ident() + 1) as other:
        jax.jit(lambda x: x - unheard).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()
    assert (other.programs, other.loaded) == (0, 0)  # which are another thread's
    jax.jit(lambda x: x + 2).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()
    assert count.programs == 1


# What a study compiles: one program of each kind for each shape, for any length.


@pytest.fixture(scope="module", autouse=True)
def keys():
    """Make the first key of the process, whose operations are compiled one by one; later keys compile nothing."""
    batches.key(0, "init")


def studied(config, directory) -> int:
    """The number of programs that XLA compiles for a study, which must equal the number that it reports."""
    with compilation_cache.counting() as count:
        small.run(config, directory)
    assert count.programs == workdir.read_json(directory / "status.json")["compilations"]
    return count.programs


@pytest.mark.long  # by day the plan of a study is compared with what it compiles
def test_more_epochs_compile_nothing_more(tmp_path, compile_anew):
    config = small.config(diagnostics=("weight_norm",), train_eval_images=1000, validation_images=8)
    config.stages.tune.epochs = 2.0
    small.run(config, tmp_path / "first")  # which also compiles single operations on arrays
    few = studied(config, tmp_path / "few")
    for stage in config.stages.values():
        stage.epochs = 4.0
    assert studied(config, tmp_path / "many") == few == 7  # init, and one of every kind


@pytest.mark.slow
def test_pools_and_validation_images_of_one_length_share_a_program(tmp_path, capsys, compile_anew):
    config = small.single(epochs=1.0)
    config.update(train_eval_images=1000, validation_images=48)  # of 96, which leaves as many to train on
    assert studied(config, tmp_path) == 5
    assert "5 programs to compile" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_study_compiles_only_what_is_left(tmp_path, monkeypatch, compile_anew):
    advance = programs.Programs.advance

    def stop_in_tune(self, stage, states, *args):
        if stage.name == "tune" and int(np.max(states.step)) > 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(self, stage, states, *args)

    config = small.config()
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(programs.Programs, "advance", stop_in_tune)
        small.run(config, tmp_path)
    assert studied(config, tmp_path) == 2  # advance and evaluate; the stage began before
    assert studied(config, tmp_path) == 0
