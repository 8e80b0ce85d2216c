"""How fast each strategy trains: images/s of all runs, against PyTorch's one run and the card's matrix product.

A cell is one program.  Those of a batch are compiled at the same time, each by a process of its own, and then measured
one after another, while nothing else works on the card.  The most telling come first.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.benchmarks import channel, flops, rounds
from tests.benchmarks.channel import Channel
from tests.gpu.worker import Crew, Entry, answer

GOAL = 300_000  # images/s of 8 runs of width 64 with the ImageNet stem
ROUNDS = 3
MATMUL = "matmul"
MISSING = "PyTorch is missing"  # as `peer` says


class Cell(NamedTuple):
    """A number of runs of a ResNet, trained by a strategy of the lab, or one run trained by `torch`."""

    width: int
    stem: str
    strategy: str
    runs: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: the cells, and the network and data that they have in common.

    mode: of PyTorch; matmul: rows of the square matrices; seconds: of one measurement of three.
    build, measure: how long a cell may take to compile, and to be measured.
    """

    cells: tuple[Cell, ...]
    depth: int
    dtype: str
    batch: int
    side: int
    images: int
    mode: str
    matmul: int
    seconds: float
    build: float
    measure: float


def full() -> Plan:
    """All strategies, numbers of runs, widths and stems on one GPU."""
    first = [Cell(64, "imagenet", "batched", 8), Cell(64, "imagenet", "map", 8), Cell(64, "imagenet", "torch", 1)]
    cells = [Cell(64, "cifar", "batched", 8), Cell(64, "cifar", "map", 8), Cell(64, "cifar", "torch", 1)]
    cells += [Cell(64, "imagenet", "map", 1), Cell(64, "imagenet", "batched", 32), Cell(64, "imagenet", "vmap", 8)]
    others = [(strategy, runs) for runs in (8, 1, 32) for strategy in ("batched", "map", "vmap")]
    for width, stem in ((16, "imagenet"), (8, "imagenet"), (16, "cifar"), (8, "cifar")):
        cells += [Cell(width, stem, strategy, 8) for strategy in ("batched", "map")] + [Cell(width, stem, "torch", 1)]
    for width, stem in ((64, "imagenet"), (16, "imagenet"), (8, "imagenet"), *((n, "cifar") for n in (64, 16, 8))):
        cells += [Cell(width, stem, strategy, runs) for strategy, runs in others]
    listed = tuple(dict.fromkeys([*first, *cells]))
    return Plan(listed, 2, "bfloat16", 128, 32, 50_000, "compile", 8192, 0.4, 75.0, 15.0)


def quick() -> Plan:
    """A small version for a CPU; its numbers mean nothing."""
    cells = [Cell(2, "imagenet", "batched", 2), Cell(2, "imagenet", "torch", 1), Cell(2, "cifar", "map", 2)]
    return Plan(tuple(cells), 1, "float32", 8, 8, 100, "eager", 128, 0.02, 90.0, 10.0)


def run(
    plan: Plan, crew: Crew, card: Channel, python: str, rows: list[Entry], left: Callable[[], float], note: Callable
) -> None:
    """Add a row for each cell to `rows` until no time is left; `note` is called after each.

    Args:
      card: a worker that multiplies matrices.
      python: an interpreter with PyTorch.
      left: seconds that are left.
    """
    done = {Cell(*(row[field] for field in Cell._fields)) for row in rows if "error" not in row}
    to_come = [cell for cell in plan.cells if cell not in done]
    first = True
    while to_come and left() > plan.measure:
        size = min(3, crew.size) if first else crew.size  # the first few share the cores with few others
        batch, to_come, first = to_come[:size], to_come[size:], False
        seconds = min(plan.build, left() - plan.measure / 2)
        workers = {cell: crew.torch(python) if cell.strategy == "torch" else crew.hire() for cell in batch}
        asks = {str(i): functools.partial(_build, workers[cell], plan, cell, seconds) for i, cell in enumerate(batch)}
        built = {batch[int(i)]: entry for i, entry in crew.at_once(asks)}
        for cell in batch:
            row = cell._asdict() | {"dtype": plan.dtype, "compiled_with": len(batch) - 1} | built[cell]
            if "error" not in row:
                row |= answer(functools.partial(_measure, workers[cell], card, plan, cell, row))
            channel.end(workers[cell].process)
            rows[:] = [other for other in rows if any(other[field] != row[field] for field in Cell._fields)] + [row]
            compare(rows)
            note()
        if any(cell.strategy == "torch" and MISSING in entry.get("error", "") for cell, entry in built.items()):
            to_come = [cell for cell in to_come if cell.strategy != "torch"]


def _build(worker: Channel, plan: Plan, cell: Cell, seconds: float) -> Entry:
    asked: dict[str, Any] = {"do": "build", "depth": plan.depth, "width": cell.width, "stem": cell.stem}
    asked |= {"dtype": plan.dtype, "side": plan.side, "batch": plan.batch}
    if cell.strategy == "torch":
        with worker.within(seconds):
            about = worker.ask(do="about")
            asked |= {"mode": plan.mode, "classes": 10, "threads": about["threads"]}
            asked["device"] = "cpu" if about["device"] == "cpu" else "cuda"
            made = worker.ask(**asked)
        return {"compile_seconds": made["seconds"], "step_images": plan.batch, "torch": about["version"]}
    with worker.within(seconds):
        return worker.ask(**asked, runs=cell.runs, strategy=cell.strategy, images=plan.images)


def _measure(worker: Channel, card: Channel, plan: Plan, cell: Cell, row: Entry) -> Entry:
    """Images/s, and the share of the matrix product's rate, measured in turns with it."""
    with worker.within(plan.measure):
        train = functools.partial(worker.train, plan.mode)
        steps = rounds.steps_for(train, plan.seconds)
        sides = {
            MATMUL: lambda: float(card.ask(do="matmul", rows=plan.matmul, dtype=plan.dtype)["flops"]),
            "cell": lambda: steps * row["step_images"] / train(steps),
        }
        rates = rounds.interleave(sides, ROUNDS)
    share, images = rounds.ratio(rates, "cell", MATMUL), rounds.spread(rates["cell"])
    work = flops.training(cell.width, cell.stem, depth=plan.depth, side=plan.side)
    return {"images_per_second": images, "of_matmul": share["median"] * work, "matmul": rounds.spread(rates[MATMUL])}


def compare(rows: Sequence[Entry]) -> None:
    """Add to each row its ratio to PyTorch's one run of the same network, where both were measured."""
    torch = {(row["width"], row["stem"]): row for row in rows if row["strategy"] == "torch"}
    for row in rows:
        other = torch.get((row["width"], row["stem"]), {})
        if "images_per_second" in row and "images_per_second" in other:
            row["of_torch"] = row["images_per_second"]["median"] / other["images_per_second"]["median"]


def speed(found: Sequence[Entry], runs: int = 8, width: int = 64, stem: str = "imagenet") -> float:
    """The images/s of the fastest strategy of the lab for the given runs; 0 if none was measured."""
    same = [row for row in found if (row["runs"], row["width"], row["stem"]) == (runs, width, stem)]
    return max((row["images_per_second"]["median"] for row in same if "images_per_second" in row), default=0.0)


# ---- in a worker ----

_built: dict[str, Any] = {}


def build(**asked: Any) -> Entry:
    """Compile the program of a cell, which `train` then runs."""
    from tests.benchmarks import ours, plans

    case = plans.Case(asked["width"], asked["stem"], asked["dtype"], (), asked["depth"])
    plan = plans.Plan((), (), 1, 0.0, asked["batch"], asked["side"], asked["images"], 0, "", "")
    made = ours.point(plan, case, plans.Point(asked["runs"], asked["strategy"]), ours.noise(plan))
    _built["train"] = made.train
    kept = ("compile_seconds", "bytes", "run_bytes", "step_images", "parameters", "devices")
    return {name: getattr(made, name) for name in kept}


def train(steps: int, mode: str = "") -> Entry:
    """Seconds of `steps` steps."""
    return {"seconds": _built["train"](steps)}


WORK = (build, train)
