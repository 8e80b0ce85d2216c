"""Tests run on the CPU, without the network, and leave nothing behind; child processes inherit the environment."""

import atexit
import os
import shutil
import socket
import tempfile

SCRATCH = tempfile.mkdtemp(prefix="plasticity_jax-tests-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # so that all tests deal runs out in the same way
os.environ.setdefault("MPLBACKEND", "Agg")
# Every study compiles its own programs; here the same one is compiled once for all tests, their child processes and,
# where pytest-xdist deals the tests out, all workers, which inherit the folder from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(SCRATCH, "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["TFDS_DATA_DIR"] = os.path.join(SCRATCH, "tfds")
os.environ["XDG_CACHE_HOME"] = os.path.join(SCRATCH, "cache")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("lab", deadline=None, max_examples=30, derandomize=True, database=None)
hypothesis.settings.load_profile("lab")

HERE = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would reach for the network fails at once, instead of after a timeout or not at all."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in HERE:
            raise OSError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
