"""What was compiled for a described device: once in a process, for all cases about that device."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax

from plasticity_jax import target
from plasticity_jax.parallel import memory, run_axis
from tests.aot import described


class Compiled(NamedTuple):
    """Texts and footprints of programs by their kinds, the shape of the mesh, and the memory of each device."""

    texts: Mapping[str, str]
    footprints: Mapping[str, memory.Footprint]
    mesh: Mapping[str, int]
    memory: int


SEVERAL = ("v5e:2x4", "h100:4")
ALONE = ("v5e:1x1", "h100")


@functools.cache
def whole(name: str) -> Compiled:
    """All programs of the study."""
    return compiled(name, 8)


def compiled(name: str, runs: int, *kinds: str, precision: str | None = None, **study: object) -> Compiled:
    with target.described(name), jax.default_matmul_precision(precision):
        compute = described.compute(described.study(runs, **study))  # type: ignore[arg-type]
        made = described.compiled(compute, *kinds)
        return Compiled(
            {kind: described.text(program) for kind, program in made.items()},
            {kind: program.footprint for kind, program in made.items() if program.footprint},
            dict(run_axis.mesh_for(compute.programs.strategy, runs).shape),
            target.memory_stats(target.devices()[0])["bytes_limit"],
        )
