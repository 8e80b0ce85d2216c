"""Tests run on the CPU, without the network, and leave no files except compiled programs in `.cache`.

Most of their time is compilation, which is reduced in three ways.  Child processes inherit the environment, and with it
the first two:

    --cheap      XLA optimises little.  Last bits differ from those of users, so tests marked `exact` are deselected.
    .cache       jax's persistent compilation cache is kept between runs.
    compile_once a program compiled by one study is shared by all studies of this process that need the same one.

Plain `pytest` uses the flags of users for every test.

Python collects garbage rarely: jax adds its own work to each collection, which takes a tenth of the time.
"""

import atexit
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

gc.disable()  # while tests are imported and collected
SCRATCH = tempfile.mkdtemp(prefix="plasticity_jax-tests-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also under nohup
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # so that all tests distribute runs in the same way
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # source locations take time
os.environ["TFDS_DATA_DIR"] = os.path.join(SCRATCH, "tfds")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

DRAWN = {"night": 100, "day": 30}  # cases of a property test; always the same ones
for name, count in DRAWN.items():
    hypothesis.settings.register_profile(name, deadline=None, max_examples=count, derandomize=True, database=None)

MAPS = 25_000  # memory maps of this process at which its studies share no earlier program any more
KEPT = Path(__file__).parents[1] / ".cache"
CHEAP = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
# The longest tests start first, so that no worker is idle while another runs them.  `target` clears jax's programs,
# which takes longer the more there are.
FIRST = (
    "target",
    "configs",
    "resume",
    "protocols",
    "resnet",
    "experiment",
    "step",
    "stage_loop",
    "learning_stages",
    "multihost",
    "readme",
    "remedies",
    "memory_check",
)
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cheap", action="store_true", help="let XLA optimise little, and leave out the `exact` tests")


def pytest_configure(config: pytest.Config) -> None:
    """Settle how and where programs are compiled, before anything is; the workers of pytest-xdist inherit both."""
    hypothesis.settings.load_profile("day" if config.getoption("--cheap") else "night")
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    import jax

    if config.getoption("--cheap"):
        cheap = CHEAP if jax.__version_info__ < (0, 12) else CHEAP[1:]  # newer versions abort at the unknown flag
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *cheap]).strip()
    from plasticity_jax.parallel import compilation_cache

    os.environ["XDG_CACHE_HOME"] = str(KEPT)
    compilation_cache.turn_on()  # chooses a directory by machine, and deletes old files
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(jax.config.values["jax_compilation_cache_dir"])
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["XDG_CACHE_HOME"] = os.path.join(SCRATCH, "cache")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--cheap"):
        exact = [item for item in items if item.get_closest_marker("exact")]
        config.hook.pytest_deselected(items=exact)
        items[:] = [item for item in items if not item.get_closest_marker("exact")]
    place = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    gc.freeze()  # excludes imported objects from collection
    gc.set_threshold(100_000, 20, 20)
    gc.enable()
    sys.dont_write_bytecode = True  # for config files that tests rewrite within a second


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would reach for the network fails at once, instead of after a timeout or not at all."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            raise OSError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="session")
def compile_once() -> Iterator[Callable[..., Any]]:
    """Studies of this process share their compiled programs; each still counts its own.

    Yields the method that this replaces.  A test that counts or patches what is compiled takes `compile_anew`.

    Programs hold up to 300 memory maps each, of which a process may have 65,530; before that none is shared any more.
    """
    from plasticity_jax.parallel.compiler import Program
    from plasticity_jax.parallel.programs import Programs

    compiled: dict[Any, Program] = {}
    real = Programs._program

    def shared(self: Programs, key: Any, compile_it: Callable[[], Any]) -> Any:
        named = self.diagnostics, self.own_resets, self.own_remedies
        functions = tuple(tuple(functions.items()) for functions in named)
        whole = type(self.model), self.model, self.image_shape, self.strategy, self.eval_batch, functions, key

        def once() -> Any:
            if whole not in compiled:
                if len(compiled) % 20 == 19 and _maps() > MAPS:
                    compiled.clear()
                compiled[whole] = compile_it()
                return compiled[whole]
            program = compiled[whole]
            return Program(lambda: (program.compiled, False), call=program.call)

        return real(self, key, once)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "_program", shared)
        yield real


def _maps() -> int:
    """The number of memory maps of this process; 0 where the system does not tell."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture
def compile_anew(compile_once: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study of this test compiles its own programs."""
    from plasticity_jax.parallel.programs import Programs

    monkeypatch.setattr(Programs, "_program", compile_once)
