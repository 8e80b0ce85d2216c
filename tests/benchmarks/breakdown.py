"""Where a training step on CPU spends its time, and a lower bound for each part.

    python -m tests.benchmarks.breakdown [--width 8] [--stem imagenet] [--steps 40]

One run, alone, in the program that the lab trains it with.  XLA's own trace times every operation, and the operation's
name in the program says what it belongs to.  The floor of the products is their arithmetic at the rate of a matrix
product, that of the rest what they write, once read and once written in place in the cache.  Operations overlap, and
what some hand to other threads is not seen, so the parts do not add up to the step.
"""

import argparse
import collections
import dataclasses
import glob
import math
import re
import tempfile
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.profiler import ProfileData

from plasticity_jax.runner import output
from tests.benchmarks import flops, machine, ours, plans

SIZES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1}
PRODUCTS = "products of convolutions"


def part_of(operation: str) -> str:
    """The part of a step to which an operation with this name belongs."""
    backward = "transpose(jvp(" in operation
    way = "backward" if backward else "forward"
    if "jvp(" not in operation:
        return "data, optimiser, copies"
    if re.search(r"conv_general_dilated|dot_general", operation):
        return f"{PRODUCTS}, {way}"
    if backward and operation.endswith("/transpose"):
        return "layouts for kernel gradients"
    return f"normalisation, ReLU, pooling, {way}"


def operations(program: str) -> dict[str, tuple[str, int]]:
    """Instruction -> (part, bytes that it writes), from the text of a compiled program."""
    parts = {}
    for line in program.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\w+)\[([\d,]*)\]", line)
        if match:
            name = re.search(r'op_name="([^"]*)"', line)
            count = math.prod(int(n) for n in match[3].split(",") if n)
            parts[match[1]] = part_of(name[1] if name else ""), SIZES.get(match[2], 4) * count
    return parts


def copy_rate() -> float:
    """Bytes per second, reads plus writes, at which 4 MB (the images of a layer) change in place; the best of five."""
    x = jnp.zeros(2**20, jnp.float32)
    change = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda i, x: jax.lax.optimization_barrier(x + 1), x))
    jax.block_until_ready(change(x))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(change(x))
        seconds.append(time.perf_counter() - start)
    return 2 * 100 * x.nbytes / min(seconds)


def profile(width: int, stem: str, steps: int) -> tuple[float, dict[str, tuple[float, float]]]:
    """Seconds of a step, and for each part the seconds of its operations and the bytes that they write."""
    plan = dataclasses.replace(plans.cpu(), growth="", real="")
    case = plans.Case(width, stem, "float32", ())
    built = ours.point(plan, case, plans.Point(1, "map"), ours.noise(plan))
    instructions = operations(built.program.compiled.as_text())
    built.train(steps)
    whole = built.train(steps) / steps
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            built.train(steps)
        (file,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
        planes = list(ProfileData.from_file(file).planes)
    events = [event for plane in planes for line in plane.lines for event in line.events if event.name in instructions]
    seconds: dict[str, float] = collections.defaultdict(float)
    written: dict[str, float] = collections.defaultdict(float)
    for event in events:
        part, size = instructions[event.name]
        seconds[part] += event.duration_ns / 1e9 / steps
        written[part] += size / steps
    return whole, {part: (seconds[part], written[part]) for part in sorted(seconds, key=seconds.__getitem__)[::-1]}


def table(whole: float, parts: Mapping[str, tuple[float, float]], arithmetic: float, rate: float, copy: float) -> str:
    """Milliseconds of each part and its lower bound; `arithmetic` is operations per step, the rates are per second."""
    lines = [f"{'a step':42}{1e3 * whole:8.2f} ms"]
    for part, (seconds, size) in parts.items():
        if not part.startswith(PRODUCTS):
            floor = 2 * size / copy
        else:
            floor = arithmetic / rate * (1 / 3 if part.endswith("forward") else 2 / 3)
        lines.append(f"  {part:40}{1e3 * seconds:8.2f} ms, floor {1e3 * floor:6.2f} ms")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.breakdown", description=__doc__)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet")
    parser.add_argument("--steps", type=int, default=40)
    flags = parser.parse_args()
    if jax.default_backend() != "cpu":
        parser.exit(1, "the profile reads traces of the CPU backend only; set JAX_PLATFORMS=cpu\n")
    whole, parts = profile(flags.width, flags.stem, flags.steps)
    arithmetic = plans.cpu().batch * flops.training(flags.width, flags.stem)
    rate, copy = machine.matmul(plans.cpu().matmul, "float32", 2.0)(), copy_rate()
    print(
        f"{flags.stem} stem, width {flags.width}; matrix product {rate / 1e9:.0f} GFLOP/s, copy {copy / 1e9:.1f} GB/s"
    )
    print(table(whole, parts, arithmetic, rate, copy))


if __name__ == "__main__":
    main()
