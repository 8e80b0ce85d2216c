"""What one training step costs a GPU or TPU that is not needed here: launches, bytes and cycles of compiled programs.

    python -m tests.benchmarks.launches --json tests/benchmarks/launches.json [--only h100,batched,8,64,imagenet ..]
    python -m tests.benchmarks.launches --json tests/benchmarks/launches.json --table

Compiles the lab's `advance` of ResNet-18 (bfloat16, batch 128, Adam, 50,000 images of 32x32) for a described device,
each program in a process of its own, and puts its row into the file; the first of `GRID` come first, and rows that are
there are made anew only by `--only`.  A program takes half a minute to two of a core.  It needs jax-cuda12-plugin and
jax-cuda12-pjrt for the GPU, libtpu for the TPU (as `make test_aot` installs them).  `--table` prints the file as
Markdown.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity_jax import strict_json
from plasticity_jax.runner import output
from tests.benchmarks import hlo, thunks

FILE = Path(__file__).with_name("launches.json")  # as committed
IMAGES, SIDE, BATCH = 50_000, 32, 128
# Instructions on a TPU: those that reverse kernels, and those that convert them to bfloat16.
KINDS = {"reverse": ("reverse", "wrapped_reverse"), "convert": ("convert", "wrapped_convert", "convert_element_type")}
TURNS = ("map",)  # strategies by which runs take turns, so that a step of n runs is n times that of one


class Wanted(NamedTuple):
    """One program: device, strategy, number of runs, width and stem."""

    device: str
    strategy: str
    runs: int
    width: int
    stem: str


def grid() -> list[Wanted]:
    """All programs, those of the goals first."""
    goals = [Wanted("h100", "batched", 8, 64, "imagenet"), Wanted("h100", "map", 1, 64, "imagenet")]
    goals += [Wanted("v5e", "map", 8, 64, "imagenet")]
    gpu = itertools.product(("h100",), ("batched", "map", "vmap"), (8, 1, 3, 32), (64, 16, 8), ("imagenet", "cifar"))
    tpu = itertools.product(("v5e",), ("map", "batched", "vmap"), (8,), (64,), ("imagenet", "cifar"))
    return list(dict.fromkeys([*goals, *map(Wanted._make, gpu), *map(Wanted._make, tpu)]))


def program(wanted: Wanted) -> Any:
    """The compiled program, made as the lab makes it, for the current target devices."""
    import numpy as np
    from ml_collections import ConfigDict

    from plasticity_jax import models, study_config
    from plasticity_jax.config.plan import unfold
    from plasticity_jax.configs.base import base, stage
    from plasticity_jax.data import datasets
    from plasticity_jax.parallel.programs import Programs
    from plasticity_jax.runner import schedule
    from plasticity_jax.storage import networks
    from plasticity_jax.training import state, step

    config = base()
    config.update(seeds=tuple(range(wanted.runs)), strategy=wanted.strategy)
    config.model.update(name="resnet", depth=2, width=wanted.width, stem=wanted.stem, dtype="bfloat16")
    config.stages = ConfigDict({"train": stage(epochs=1.0, batch_size=BATCH)})
    study = study_config.parse(config)
    (pack,) = study.packs
    (leg,) = unfold(pack, study.seeds)
    images, labels = np.zeros((IMAGES, SIDE, SIDE, 3), np.uint8), np.arange(IMAGES) % 10
    data = datasets.from_arrays("blank", images, labels, images[:10], labels[:10])
    network = models.build(pack.model, data.classes)
    states = networks.states_like(leg, state.network_like(network, images.shape[1:]))
    rows = schedule.tasks(schedule.draw_up(leg, study, data), IMAGES), np.zeros(wanted.runs, np.int32)
    scale = np.zeros(3, np.float32)
    made = Programs(network, images.shape[1:], wanted.strategy, 0, {}, {})
    return made.program("advance", leg.runs[0].stage, states, rows, step.Images(images, scale, scale))


def measure(wanted: Wanted, dump: Path) -> dict[str, Any]:
    """The row of a program, compiled in this process; XLA writes its list of launches below `dump`."""
    from plasticity_jax import target

    with target.described(wanted.device):
        built = program(wanted)
        text = built.compiled.as_text()
    if is_tpu(wanted):
        return of_tpu(wanted, text, built.footprint.total)
    return of_gpu(wanted, text, built.footprint.total, launched(dump))


def dumping(folder: Path) -> str:
    """The XLA_FLAGS, to be set before the first program for a GPU, by which XLA writes lists of launches."""
    return f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*mapped.*"


def launched(dump: Path) -> str:
    """XLA's list of the launches of the largest program written there, which is the training program."""
    listed = [each.read_text() for each in dump.glob("*mapped*.thunk_sequence_after_thunk_passes.txt")]
    return max(listed, key=len)


def of_gpu(wanted: Wanted, text: str, memory: int, listed: str) -> dict[str, Any]:
    """The row of a program for a GPU: its instructions, the bytes that it takes, and XLA's list of its launches."""
    turns = wanted.runs if wanted.strategy in TURNS else 1
    row: dict[str, Any] = wanted._asdict() | {"memory": memory}
    counts = thunks.count(listed)
    per_call = counts.pop("host_issues_per_call")
    row |= {name: turns * n for name, n in counts.items()}
    moved, copied = turns * hlo.moved(text), turns * hlo.copied(text)
    return row | {"host_issues_per_call": per_call, "bytes": moved, "copied_bytes": copied}


def of_tpu(wanted: Wanted, text: str, memory: int) -> dict[str, Any]:
    """The row of a program for a TPU: its instructions, and the bytes that it takes."""
    turns, by_kind = wanted.runs if wanted.strategy in TURNS else 1, hlo.cycles(text)
    row: dict[str, Any] = wanted._asdict() | {"memory": memory, "cycles": turns * sum(by_kind.values())}
    for kind, names in KINDS.items():
        row[f"{kind}_cycles"] = turns * sum(n for name, n in by_kind.items() if name in names)
    return row


def is_tpu(wanted: Wanted) -> bool:
    return wanted.device.startswith("v")


def in_a_process(wanted: Wanted) -> dict[str, Any]:
    """The row of a program, measured in a process of its own, or an `error`."""
    with tempfile.TemporaryDirectory() as folder:
        flags = dumping(Path(folder))
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if not is_tpu(wanted):
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        call = [
            sys.executable,
            "-m",
            "tests.benchmarks.launches",
            "--one",
            ",".join(map(str, wanted)),
            "--dump",
            folder,
        ]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return wanted._asdict() | {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:300]}


def read(file: Path) -> dict[Wanted, dict[str, Any]]:
    """The rows of a file by program; empty if there is no file."""
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    return {Wanted(*(row[field] for field in Wanted._fields)): row for row in rows}


def write(file: Path, rows: dict[Wanted, dict[str, Any]]) -> None:
    import jaxlib

    order = {wanted: place for place, wanted in enumerate(grid())}
    listed = sorted(rows, key=lambda wanted: order.get(wanted, len(order)))
    lines = ",\n".join(f"  {strict_json.dumps(rows[wanted])}" for wanted in listed)
    text = f'{{"jaxlib": {strict_json.dumps(jaxlib.__version__)}, "rows": [\n{lines}\n]}}\n'
    file.write_text(text)


GPU = ("kernels", "host_issues", "host_issues_per_call", "products", "convolutions", "transposes", "copies")


def table(rows: dict[Wanted, dict[str, Any]]) -> str:
    """The rows as Markdown: launches on GPUs, cycles on TPUs."""
    good = {wanted: row for wanted, row in rows.items() if "error" not in row}
    heads = [*Wanted._fields[:-1], "stem", *(name.replace("_", " ") for name in GPU), "GB a step", "memory, GB"]
    lines = [heads, ["---"] * len(heads)]
    for wanted, row in good.items():
        if not is_tpu(wanted):
            lines.append(
                [
                    *wanted,
                    *(f"{row[name]:,}" for name in GPU),
                    f"{row['bytes'] / 1e9:.2f}",
                    f"{row['memory'] / 1e9:.2f}",
                ]
            )
    lines.append([])
    heads = [*Wanted._fields, "Mcycles", *(f"{kind}, %" for kind in KINDS), "memory, GB"]
    lines += [heads, ["---"] * len(heads)]
    for wanted, row in good.items():
        if is_tpu(wanted):
            shares = (f"{100 * row[f'{kind}_cycles'] / row['cycles']:.1f}" for kind in KINDS)
            lines.append([*wanted, f"{row['cycles'] / 1e6:.2f}", *shares, f"{row['memory'] / 1e9:.2f}"])
    return "\n".join(f"| {' | '.join(map(str, line))} |" if line else "" for line in lines)


def main(args: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.launches", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="the file of rows")
    parser.add_argument(
        "--only", nargs="*", default=[], type=_wanted, help="DEVICE,STRATEGY,RUNS,WIDTH,STEM, made anew"
    )
    parser.add_argument("--table", action="store_true", help="print the file, compile nothing")
    parser.add_argument("--one", type=_wanted, help=argparse.SUPPRESS)
    parser.add_argument("--dump", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(args)
    if flags.one:
        print(strict_json.dumps(measure(flags.one, flags.dump)))
        return
    if not flags.json:
        parser.error("give a file: --json FILE")
    rows = read(flags.json)
    if flags.table:
        print(table(rows))
        return
    for wanted in flags.only or [each for each in grid() if "error" in rows.get(each, {"error": ""})]:
        rows[wanted] = in_a_process(wanted)
        write(flags.json, rows)
        print(strict_json.dumps(rows[wanted]), flush=True)


def _wanted(text: str) -> Wanted:
    device, strategy, runs, width, stem = text.split(",")
    return Wanted(device, strategy, int(runs), int(width), stem)


if __name__ == "__main__":
    main()
