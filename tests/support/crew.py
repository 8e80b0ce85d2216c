"""Starts several processes that train one study over loopback, and processes with any number of devices."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from plasticity_jax.parallel import multihost

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(code: str, directory: Path, count: int = 1, devices: int = 1, **environment: str) -> list[subprocess.Popen]:
    """Runs Python code, with the tests importable, in `count` connected processes."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    base = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    address, made = f"127.0.0.1:{free_port()}", []
    for index in range(count):
        variables = (
            {multihost.ADDRESS: address, multihost.COUNT: str(count), multihost.INDEX: str(index)} if count > 1 else {}
        )
        call = [sys.executable, "-c", code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        made.append(subprocess.Popen(call, cwd=directory, env=base | variables | environment, **pipes))
    return made


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[tuple[int, str]]:
    """(exit status, output) of each process."""
    try:
        return [
            (process.wait(seconds), text) for process in processes for text in [process.communicate(timeout=seconds)[0]]
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()
