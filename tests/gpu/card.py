"""The card: what it is, how XLA describes it, and how fast it multiplies matrices."""

import functools
import os
import re
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
SECONDS = 0.2  # of one measurement of the matrix product
HEADER = """\
# {name} as XLA describes it to its compiler (GpuTargetConfigProto), read from a card; driver, toolkit and cuDNN are
# those of its machine.  --compile_for=FILE compiles for it anywhere.
"""


def describe(dump: str) -> Entry:
    """Versions and hardware, and XLA's `description` of a GPU, which it writes below `dump` (flag of the process)."""
    import jax
    import jax.numpy as jnp

    from plasticity_jax import target
    from tests.benchmarks import machine

    jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((64, 64))))
    facts = machine.facts()
    (device, *_) = target.local_devices()
    hardware = facts | {"memory": target.memory_stats(device).get("bytes_limit"), "cores": os.cpu_count()}
    texts = sorted(Path(dump).glob("*gpu_target_config.pbtxt"))
    return hardware | {
        "description": HEADER.format(name=facts["device_kind"]) + texts[0].read_text() if texts else None
    }


def matmul(rows: int, dtype: str) -> Entry:
    """The rate of the square matrix product, FLOP/s."""
    return {"flops": _side(rows, dtype)()}


@functools.cache
def _side(rows: int, dtype: str) -> Any:
    from tests.benchmarks import machine

    return machine.matmul(rows, dtype, SECONDS)


WORK = (describe, matmul)


def flags(dump: Path) -> str:
    """The XLA flags with which `describe` finds the description."""
    return f"--xla_dump_to={dump} --xla_dump_hlo_as_text"


def file_name(name: str) -> str:
    """The name of the description's file, like `nvidia-h100-80gb-hbm3.txtpb`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".txtpb"
