"""The devices that programs are compiled for: those of this machine, or described ones that nobody has to have.

This is the only module that asks jax for devices; all others ask it.  XLA compiles for a TPU that is only described
with the package libtpu, and for such a GPU with jax-cuda12-plugin and jax-cuda12-pjrt.  A program for a described
device says what memory it takes and which instructions it has, but cannot run.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import SingleDeviceSharding

from plasticity_jax.errors import LabError

GPUS = Path(__file__).parent / "gpus"  # descriptions that come with the lab
TPUS = ("v4", "v5e", "v5p", "v6e")  # that were tried
GIB = 2**30
# Or libtpu asks the network which TPU this is, complains of the answer, and keeps other processes out.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices, and the bytes of memory that programs can take on each; None where that is not known."""

    devices: tuple[jax.Device, ...]
    memory: int | None


_described: list[Target] = []  # of all threads: one that does not know of it would compile for this machine


def devices() -> list[jax.Device]:
    """The devices of all processes."""
    return list(_described[-1].devices) if _described else jax.devices()


def local_devices() -> list[jax.Device]:
    """Those of this process; described ones are all."""
    return devices() if _described else jax.local_devices()


def backend() -> str:
    """`cpu`, `gpu` or `tpu`."""
    return _described[-1].devices[0].platform if _described else jax.default_backend()


def is_described() -> bool:
    """Whether programs cannot run, since they are compiled for devices that are only described."""
    return bool(_described)


def shardings() -> dict[str, SingleDeviceSharding]:
    """What `jax.jit` has to be told for a program on one device.

    Nothing where that is one of this machine.  Untold, jax would compile for this machine, and not say so.
    """
    if not _described:
        return {}
    one = SingleDeviceSharding(_described[-1].devices[0])
    return {"in_shardings": one, "out_shardings": one}


def memory_stats(device: jax.Device) -> dict[str, int]:
    """What a device says of its memory, as `jax.Device.memory_stats`; empty if nothing."""
    if not _described:
        return device.memory_stats() or {}
    memory = _described[-1].memory
    return {} if memory is None else {"bytes_limit": memory}


@contextlib.contextmanager
def using(found: Target) -> Iterator[None]:
    """Inside, the devices are these."""
    _described.append(found)
    try:
        yield
    finally:
        _described.pop()


@contextlib.contextmanager
def described(name: str) -> Iterator[None]:
    """Inside, programs are compiled for devices that need not be there; the process itself computes on its CPU.

    Args:
      name: `KIND:TOPOLOGY` for TPUs (`v5e:2x4`, `v4:2x2x1`; a v4 chip counts as its two cores), `h100` or `h100:4` for
        one or four GPUs, or the path of another description of a GPU, likewise with a number.  Such a file is written
        by XLA on a machine that has the GPU (XLA_FLAGS=--xla_dump_to=DIR, *.gpu_target_config.pbtxt).

    Raises:
      LabError: there is no such device, or the package that compiles for it is missing.
    """
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there may belong to a study
    jax.clear_caches()  # functions may have been traced for this machine
    cached = bool(jax.config.values["jax_enable_compilation_cache"])
    jax.config.update("jax_enable_compilation_cache", False)  # it needs a device to load a program
    compilation_cache.reset_cache()  # or it holds to what it was told before
    try:
        with using(_find(name)):
            yield
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
        compilation_cache.reset_cache()
        jax.clear_caches()


def _find(name: str) -> Target:
    if tpu := re.fullmatch(r"(v\d+\w*)(?::([\dx]+))?", name):
        return _tpu(name, tpu[1], tpu[2] or "1x1")
    file, number = re.fullmatch(r"(.*?)(?::(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    path = Path(file) if file and Path(file).is_file() else GPUS / f"{file}.txtpb"
    if not path.is_file():
        names = ", ".join([*(path.stem for path in sorted(GPUS.glob("*.txtpb"))), *(f"{kind}:.." for kind in TPUS)])
        raise LabError(f"--compile_for={name}: no such device or file; give a description of a GPU, or one of {names}")
    return _gpu(name, path, int(number or 1))


def _tpu(name: str, kind: str, shape: str) -> Target:
    if importlib.util.find_spec("libtpu") is None:
        raise _missing(name, f'"jax[tpu]=={jax.__version__}"')
    for key, value in LIBTPU.items():
        os.environ.setdefault(key, value)
    alone = {"chips_per_host_bounds": [1, 1, 1]} if re.fullmatch("1(x1)*", shape) else {}
    devices = _describe(name, "tpu", topology_name=f"{kind}:{shape}", **alone)
    return Target(tuple(devices), _tpu_memory(devices[0]))


def _gpu(name: str, path: Path, count: int) -> Target:
    if count < 1:
        raise LabError(f"--compile_for={name}: give a number of GPUs above 0")
    if importlib.util.find_spec("jax_plugins") is None or not any(
        importlib.util.find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)
    ):
        raise _missing(name, " ".join(f"jax-cuda12-{part}=={jaxlib.__version__}" for part in ("plugin", "pjrt")))
    text = path.read_text(errors="replace")
    devices = _describe(name, "cuda", topology_name="", target_config=text, topology=f"1x1x{count}")
    size = re.search(r"\bdevice_memory_size:\s*(\d+)", text)
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or 0.75)  # of it jax takes so much
    return Target(tuple(devices), int(int(size[1]) * share) if size else None)


def _missing(name: str, packages: str) -> LabError:
    return LabError(f"--compile_for={name}: the compiler for this device is missing; run: pip install {packages}")


def _describe(name: str, platform: str, **options: Any) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform=platform, **options).devices
    except Exception as error:  # of many types, from Python and C++
        why = " ".join(str(error).split())[:200]
        raise LabError(f"--compile_for={name}: it cannot be described: {why}") from error


@functools.cache
def _tpu_memory(device: jax.Device) -> int | None:
    """Bytes that the compiler for a TPU lets a program take: it says so when it refuses one that takes more."""
    on_it = SingleDeviceSharding(device)
    far_too_much = jax.ShapeDtypeStruct((2**40,), "uint8")
    try:
        jax.jit(lambda x: (x + 1).sum(), in_shardings=on_it, out_shardings=on_it).lower(far_too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if said := re.search(r"available HBM \(([\d.]+)G\)", str(error)):
            return int(float(said[1]) * GIB)
    return None
