"""Bytes: what a compiled program needs, how that grows with the number of runs, and what a device has to spare."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from plasticity_jax import target

SYSTEM = Path("/")  # where the /proc and /sys of control groups are
SIDE_BY_SIDE = ("vmap", "batched", "seedwise")  # strategies by which every run has temporaries of its own


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes that a compiled program needs on each of its devices.

    aliased: the part of the outputs that takes the place of arguments which were given away.
    code: the program itself; 0 where XLA does not count it.
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
    """What XLA found out about a program while compiling it; None where it does not tell."""
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
    """Bytes on one device as a function of the runs on it."""

    fixed: int
    each: int

    def __call__(self, runs: int) -> int:
        return self.fixed + self.each * runs


def line(program: Footprint, strategy: str, count: int, fixed: int, each: int) -> Line:
    """The bytes in use while a program runs, for other numbers of runs than the `count` it was compiled for.

    Args:
      program: compiled for `count` runs on each device, but by `loop` for one.
      fixed, each: bytes of what is there before, arguments included: once, and for each run.
    """
    if strategy == "loop":  # the results are collected one by one, and then stacked
        return Line(fixed + program.temporaries + program.code, each + 2 * program.outputs)
    new = (program.outputs - program.aliased) // count
    # Runs that take turns share their temporaries, but for a buffer in which the results are collected, if these do not
    # take the place of arguments.
    growth = -(-program.temporaries // count) if strategy in SIDE_BY_SIDE else new
    temporaries = max(0, program.temporaries - growth * count)
    return Line(fixed + temporaries + program.code, each + new + growth)


def sequential(found: Line, program: Footprint, count: int) -> Line:
    """The line by `map` of a program whose line by `vmap` is `found`, from above.

    One run's temporaries are needed once, beside a copy of its row of the results; what is shared by all runs stays.
    """
    one, made = -(-program.temporaries // count), program.outputs // count
    return Line(found.fixed + one + made, found.each - one + (program.outputs - program.aliased) // count)


def size(tree: Any) -> int:
    """Bytes of all arrays of a tree, given as arrays or their shapes."""
    kinds = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    return sum(kind.size * kind.dtype.itemsize for kind in kinds)


def free(device: jax.Device) -> int | None:
    """Bytes of memory that this process can still take; None if the device does not tell.

    A GPU or TPU counts for itself, within the share that XLA was given of it.  For a CPU it is what the machine has
    available, or what is left below the limit of a control group (as containers and batch systems set it) if less.
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
    """What is left below the limit of every control group (versions 2 and 1) that this process is in."""
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
        for group in (inside, *inside.parents):  # in a container the name may be that outside, and only `top` is there
            try:
                stat = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                files = sum(int(stat.get(key, 0)) for key in cached)  # the system gives these up when asked
                yield int((group / limit).read_text()) - int((group / usage).read_text()) + files
            except (OSError, ValueError):  # no such group, or "max"
                pass
            if group == top:
                break
