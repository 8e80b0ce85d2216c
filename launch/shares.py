"""Shares of this machine, one for each job that runs at a time: GPUs where jax would use them, else CPU cores."""

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
DEV = Path("/dev")


@dataclasses.dataclass(frozen=True)
class Share:
    """environment: what a child is given besides that of this process.  cores: of the CPU, empty for all."""

    environment: Mapping[str, str]
    cores: tuple[int, ...]

    def start(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen:
        """Start a child with this share, in a session of its own: a Ctrl-C is for its parent alone."""
        with _on(self.cores):
            return subprocess.Popen(
                command,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def _on(cores: Collection[int]) -> Iterator[None]:
    """Children that are started inside may use these cores only, from their first moment: jax counts them once."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread, which they inherit
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def deal(count: int) -> list[Share]:
    """`count` shares: a GPU each, in turn if there are fewer; without GPUs an equal part of this process's cores."""
    devices = gpus(os.environ)
    if devices:
        return [Share({"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]}, ()) for i in range(count)]
    if count == 1 or not hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return [Share({}, ())] * count
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return [Share({}, (cores[i % len(cores)],)) for i in range(count)]
    ends = [len(cores) * i // count for i in range(count + 1)]
    return [Share({}, tuple(cores[start:end])) for start, end in zip(ends, ends[1:], strict=False)]


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The names of the GPUs that jax would use, as CUDA_VISIBLE_DEVICES has them; jax itself is not asked."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    if not any(importlib.util.find_spec(plugin) for plugin in PLUGINS):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        told = (name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(","))
        return list(itertools.takewhile(_may_be_gpu, told))  # CUDA too ignores all that follows a name that is none
    numbers = [path.name.removeprefix("nvidia") for path in DEV.glob("nvidia[0-9]*")]
    return sorted((number for number in numbers if number.isdecimal()), key=int)


def _may_be_gpu(name: str) -> bool:
    """Whether it is a number, or the identifier of a GPU or of a part of one; -1 and words like `none` are not."""
    return name.isdecimal() or name.startswith(("GPU-", "MIG-"))
