"""Memory in bytes: of a compiled program, as a function of the number of runs, and available on a device."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from plasticity_jax import target

SYSTEM = Path("/")  # root of the /proc and /sys with control groups
SIDE_BY_SIDE = ("vmap", "batched", "seedwise")  # strategies in which each run has its own temporaries


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes that a compiled program needs on each of its devices.

    aliased: the part of the outputs that reuses donated arguments.
    code: the program itself; 0 if XLA does not report it.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def footprint(compiled: jax.stages.Compiled) -> Footprint | None:
    """The memory of a program according to XLA; None if XLA does not report it."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return Footprint(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


@dataclasses.dataclass(frozen=True)
class Line:
    """Bytes on one device, linear in the number of runs on it."""

    fixed: int
    per_run: int

    def __call__(self, runs: int) -> int:
        return self.fixed + self.per_run * runs


def line(program: Footprint, strategy: str, count: int, fixed: int, per_run: int) -> Line:
    """The bytes in use while a program runs, as a function of the number of runs.

    Args:
      program: compiled for `count` runs on each device, with `loop` for one.
      strategy: of the program.
      count: the number of runs that it was compiled for.
      fixed, per_run: bytes in use before the program starts, arguments included: in all, and for each run.
    """
    if strategy == "loop":  # the results are collected one by one, and then stacked
        return Line(fixed + program.temporaries + program.code, per_run + 2 * program.outputs)
    new = (program.outputs - program.aliased) // count
    # Runs processed one after another share their temporaries, except for the buffer of results that do not reuse
    # donated arguments.
    growth = -(-program.temporaries // count) if strategy in SIDE_BY_SIDE else new
    temporaries = max(0, program.temporaries - growth * count)
    return Line(fixed + temporaries + program.code, per_run + new + growth)


def sequential(vmapped: Line, program: Footprint, count: int) -> Line:
    """An upper bound of the line of a program with `map`, given its line `vmapped` with `vmap`.

    The temporaries of one run are needed once, besides a copy of its row of the results; the fixed part is the same.
    """
    one, made = -(-program.temporaries // count), program.outputs // count
    return Line(vmapped.fixed + one + made, vmapped.per_run - one + (program.outputs - program.aliased) // count)


def size(tree: Any) -> int:
    """Bytes of all arrays of a tree, given as arrays or their shapes."""
    kinds = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    return sum(kind.size * kind.dtype.itemsize for kind in kinds)


def free(device: jax.Device) -> int | None:
    """Bytes of memory that this process can still allocate; None if the device does not report it.

    For a GPU or TPU, within the share that XLA uses.  For a CPU, the machine's available memory, or if smaller the rest
    of the limit of a control group, as set by containers and batch systems.
    """
    stats = target.memory_stats(device)
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return min([psutil.virtual_memory().available, *_groups()]) if device.platform == "cpu" else None


def text(count: float) -> str:
    """`1.23 GB`, `45.6 MB` or `789 kB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"


def _groups() -> Iterator[int]:
    """The remaining bytes of the limit of each control group (versions 2 and 1) of this process."""
    try:
        entries = [row.split(":", 2) for row in (SYSTEM / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    root = SYSTEM / "sys/fs/cgroup"
    for _, controllers, name in entries:
        if controllers == "":
            top, limit, usage, cached = root, "memory.max", "memory.current", ("inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file", "total_active_file"
        else:
            continue
        inside = top / name.lstrip("/")
        for group in (inside, *inside.parents):  # in a container `inside` may not exist, only `top`
            try:
                stat = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                files = sum(int(stat.get(key, 0)) for key in cached)  # file cache, which the system can reclaim
                yield int((group / limit).read_text()) - int((group / usage).read_text()) + files
            except (OSError, ValueError):  # no such group, or the limit is "max"
                pass
            if group == top:
                break
