"""Compiles the programs of a study for described devices: which compile, and how many runs fit into memory.

Nothing is trained.  The number of runs that fit assumes the mesh of the plan: devices that share the batches of a run
continue to share them.
"""

import time
from collections.abc import Iterator

import jax

from plasticity_jax import target
from plasticity_jax.errors import LabError, RoomError
from plasticity_jax.parallel import memory, run_axis
from plasticity_jax.profiling import memory_check
from plasticity_jax.profiling.memory_check import Call, Need
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.schedule import Timetable

REFUSALS = (jax.errors.JaxRuntimeError, NotImplementedError)  # from XLA, and from jax for unsupported operations


def report(context: Compute) -> Iterator[str]:
    """Compiles all programs of a pack; yields lines: the mesh, each program when it is compiled, and the total memory.

    Raises:
      LabError: at the end, if a program does not compile, or not all runs fit.
    """
    strategy, widest = context.programs.strategy, max(len(times.group.runs) for times in context.timetables.values())
    available, mesh = memory_check.free(), run_axis.mesh_for(strategy, widest)
    room = "an unknown memory" if available is None else memory.text(available)
    images = max(memory_check.of_images(context, times) for times in context.timetables.values())
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    yield f"  mesh: {axes}; {room} on each device, {memory.text(images)} of it for images"
    yield f"  {'program':28}{'compiled in':>12}{'per run':>10}{'besides':>10}{'runs that fit':>15}"
    needs, refused = [], []
    for times in context.timetables.values():
        for call in memory_check.calls(times, context):
            title = f"{times.group.name} {call.kind}"
            try:
                seconds, need = _compile(call, times, context)
            except REFUSALS as error:
                refused.append(title)
                yield f"  {title:28}refused: {' '.join(str(error).split())[:300]}"
                continue
            if need is None:
                yield f"  {title:28}{seconds:>12}   the compiler does not report its memory"
                continue
            needs.append(need)
            fits = "?" if available is None else f"{fitting(need, strategy, available):,}"
            grows = need.line
            yield f"  {title:28}{seconds:>12}{memory.text(grows.per_run):>10}{memory.text(grows.fixed):>10}{fits:>15}"
    if refused:
        raise LabError(f"{context.pack.name}: the compiler refused {', '.join(refused)}")
    try:
        line = memory_check.compare(needs, context)[1] if needs else ""
    except RoomError as error:
        raise RoomError(f"{context.pack.name}: {error}") from error
    yield line or "  memory: not known"


def fitting(need: Need, strategy: str, available: int) -> int:
    """The largest number of runs for which a program fits into `available` bytes on each device."""
    devices, ways = run_axis.layout(strategy, need.runs)
    line = need.line
    groups = len(target.devices()) // ways
    return max(0, (available - line.fixed) // max(1, line.per_run)) * groups


def _compile(call: Call, times: Timetable, context: Compute) -> tuple[str, Need | None]:
    """(compile time as text, or "(as above)" for a program compiled before; what it needs)."""
    before, start = context.programs.compiled, time.perf_counter()
    program = context.programs.program(call.kind, call.stage, *call.args)
    seconds = f"{time.perf_counter() - start:.1f} s" if context.programs.compiled > before else "(as above)"
    if program.footprint is None:
        return seconds, None
    return seconds, memory_check.need_of(call, program.footprint, times, context)
