"""The machine: what it is, and how fast it multiplies matrices."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from plasticity_jax.storage import workdir
from tests.benchmarks.rounds import Side


def facts() -> dict[str, Any]:
    """Versions and hardware, and the load of the machine before the measurement."""
    return workdir.environment() | {"processor": processor(), "load": os.getloadavg()[0]}


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def matmul(rows: int, dtype: str, seconds: float) -> Side:
    """A side that measures the rate of the square matrix product, in FLOP/s."""
    matrix = jax.random.normal(jax.random.key(0), (rows, rows)).astype(dtype)
    product = jax.jit(jnp.dot)
    product(matrix, matrix).block_until_ready()

    def rate() -> float:
        count, start, spent = 0, time.perf_counter(), 0.0
        while spent < seconds:
            # Some products in flight at once, or an accelerator waits for the host between them.
            jax.block_until_ready([product(matrix, matrix) for _ in range(8 if rows > 4096 else 1)])
            count += 8 if rows > 4096 else 1
            spent = time.perf_counter() - start
        return 2 * rows**3 * count / spent

    return rate
