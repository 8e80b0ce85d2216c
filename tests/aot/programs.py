"""Programs compiled for a described device: once in a process, for all cases about that device."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from plasticity_jax import target
from plasticity_jax.parallel import memory, run_axis
from tests.aot import described
from tests.benchmarks import launches


class Compiled(NamedTuple):
    """Texts and footprints of programs by their kinds, the shape of the mesh, and the memory of each device.

    launched: XLA's list of the launches of `advance`, if it was told to write it before its first program; else "".
    """

    texts: Mapping[str, str]
    footprints: Mapping[str, memory.Footprint]
    mesh: Mapping[str, int]
    memory: int
    launched: str = ""


SEVERAL = ("v5e:2x4", "h100:4")
ALONE = ("v5e:1x1", "h100")


@functools.cache
def whole(name: str) -> Compiled:
    """All programs of the study; `quickly` for several devices, as speed is claimed of a single TPU only."""
    if name != "h100":
        return compiled(name, 8, quickly=name in SEVERAL)
    folder = Path(tempfile.mkdtemp(prefix="plasticity_jax-launches-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {launches.dumping(folder)}".strip())
        programs = compiled(name, 8)
    return programs._replace(launched=launches.launched(folder)) if any(folder.iterdir()) else programs


def compiled(
    name: str, runs: int, *kinds: str, precision: str | None = None, quickly: bool = False, **study: object
) -> Compiled:
    """Programs of the given kinds, or of all; with `quickly` the TPU compiler optimises little."""
    effort = -1.0 if quickly and name.startswith("v") else 0.0
    with target.described(name), jax.default_matmul_precision(precision), _effort(effort):
        compute = described.compute(described.study(runs, **study))  # type: ignore[arg-type]
        made = described.compiled(compute, *kinds)
        return Compiled(
            {kind: described.text(program) for kind, program in made.items()},
            {kind: program.footprint for kind, program in made.items() if program.footprint},
            dict(run_axis.mesh_for(compute.programs.strategy, runs).shape),
            target.memory_stats(target.devices()[0])["bytes_limit"],
        )


@contextlib.contextmanager
def _effort(effort: float) -> Iterator[None]:
    before = jax.config.values["jax_exec_time_optimization_effort"]
    jax.config.update("jax_exec_time_optimization_effort", effort)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)
