"""The devices that programs are compiled for: those of this machine, or described ones that need not be present.

Only this module asks jax for devices; all others use it.  To compile for a described TPU, XLA needs the package libtpu;
for a described GPU, jax-cuda12-plugin and jax-cuda12-pjrt.  A program for a described device has a memory analysis and
text, but cannot run.
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
TPUS = ("v4", "v5e", "v5p", "v6e")  # kinds that have been tested
GIB = 2**30
# Without these libtpu queries the network for the kind of TPU, logs errors, and locks out other processes.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices, and the bytes of memory that programs can use on each; None if unknown."""

    devices: tuple[jax.Device, ...]
    memory: int | None


_described: list[Target] = []  # a stack for all threads, since all must compile for the same devices


def devices() -> list[jax.Device]:
    """The devices of all processes."""
    return list(_described[-1].devices) if _described else jax.devices()


def local_devices() -> list[jax.Device]:
    """The devices of this process; all of them if they are described."""
    return devices() if _described else jax.local_devices()


def host() -> jax.Device | None:
    """The CPU of this process, in addition to any accelerators; None if jax is configured for other platforms only."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def backend() -> str:
    """`cpu`, `gpu` or `tpu`."""
    return _described[-1].devices[0].platform if _described else jax.default_backend()


def is_described() -> bool:
    """Whether programs are compiled for described devices, and so cannot run."""
    return bool(_described)


def shardings() -> dict[str, SingleDeviceSharding]:
    """Arguments of `jax.jit` for a program on one device.

    Empty for a device of this machine.  For a described one they are needed: jax would silently use this machine.
    """
    if not _described:
        return {}
    one = SingleDeviceSharding(_described[-1].devices[0])
    return {"in_shardings": one, "out_shardings": one}


def memory_stats(device: jax.Device) -> dict[str, int]:
    """The result of `jax.Device.memory_stats`, or {"bytes_limit": ..} of a described device; empty if unknown."""
    if not _described:
        return device.memory_stats() or {}
    memory = _described[-1].memory
    return {} if memory is None else {"bytes_limit": memory}


@contextlib.contextmanager
def using(target: Target) -> Iterator[None]:
    """Context in which the devices are those of `target`."""
    _described.append(target)
    try:
        yield
    finally:
        _described.pop()


@contextlib.contextmanager
def described(name: str) -> Iterator[None]:
    """Context in which programs are compiled for devices that need not be present; the process itself uses its CPU.

    Args:
      name: `KIND:TOPOLOGY` for TPUs (`v5e:2x4`, `v4:2x2x1`; a v4 chip counts as two devices), `h100` or `h100:4` for
        one or four GPUs, or the path of another description of a GPU, optionally with a number.  XLA writes such a
        file on a machine with the GPU (XLA_FLAGS=--xla_dump_to=DIR, *.gpu_target_config.pbtxt).

    Raises:
      LabError: there is no such device, or the package that compiles for it is missing.
    """
    jax.config.update("jax_platforms", "cpu")  # a GPU of this machine may be in use by a study
    jax.clear_caches()  # functions may have been traced for this machine
    cached = bool(jax.config.values["jax_enable_compilation_cache"])
    jax.config.update("jax_enable_compilation_cache", False)  # loading a program needs a real device
    compilation_cache.reset_cache()  # otherwise the former setting stays in effect
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
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or 0.75)  # fraction of the memory that jax uses
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
    """Bytes that a program may use on a TPU, read from the compiler's error message for one that is too large."""
    on_it = SingleDeviceSharding(device)
    far_too_much = jax.ShapeDtypeStruct((2**40,), "uint8")
    try:
        jax.jit(lambda x: (x + 1).sum(), in_shardings=on_it, out_shardings=on_it).lower(far_too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        if said := re.search(r"available HBM \(([\d.]+)G\)", str(error)):
            return int(float(said[1]) * GIB)
    return None
