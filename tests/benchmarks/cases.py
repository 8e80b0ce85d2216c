"""Measures one case: all its programs, PyTorch and a matrix product in turn; and interprets the rates."""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax

from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import LabError
from plasticity_jax.parallel.cpu import threads
from tests.benchmarks import flops, machine, ours, rounds
from tests.benchmarks.channel import Channel, PeerError
from tests.benchmarks.plans import Case, Plan
from tests.benchmarks.rounds import Side

Entry = dict[str, Any]
Rates = dict[str, list[float]]
MATMUL = "matmul"


def measure(case: Case, plan: Plan, dataset: Dataset, channel: Channel | None, tick: Callable[[str], None]) -> Entry:
    """The case as JSON values: `rows`, one for each point, and `torch` by mode.

    Whatever fails has an `error` in its place.  `tick` is called with the name of each finished thing.
    """
    sides: dict[str, Side] = {MATMUL: machine.matmul(plan.matmul, case.dtype, plan.seconds / 4)}
    built: dict[str, ours.Built] = {}
    failed: dict[str, str] = {}
    for point in case.points:
        try:
            built[point.name] = program = ours.point(plan, case, point, dataset)
            sides[point.name] = side(program.train, program.step_images, plan)
        except (LabError, jax.errors.JaxRuntimeError) as error:
            failed[point.name] = str(error).partition("\n")[0]
        tick(point.name)
    parameters = {program.parameters for program in built.values()}
    torch = {mode: torch_entry(case, plan, mode, channel, parameters) for mode in (plan.modes if channel else ())}
    for mode, entry in torch.items():
        if channel and "error" not in entry:
            sides[mode] = side(functools.partial(channel.train, mode), plan.batch, plan)
        tick(mode)
    rates = rounds.interleave(sides, plan.rounds, lambda: tick("round"))
    operations = flops.training(case.width, case.stem, depth=case.depth, side=plan.side)
    rows = []
    for point in case.points:
        row: Entry = {"width": case.width, "depth": case.depth, "stem": case.stem, "dtype": case.dtype}
        row |= {"runs": point.runs, "strategy": point.strategy}
        if point.name in failed:
            rows.append(row | {"error": failed[point.name]})
            continue
        program = built[point.name]
        row |= _rates(rates, point.name, operations)
        row["of_one_run"] = _of(rates, point.name, case.points[0].name)
        row["of_torch"] = {mode: _of(rates, point.name, mode) for mode in plan.modes}
        for name in ("compile_seconds", "bytes", "run_bytes", "step_images", "parameters", "devices"):
            row[name] = getattr(program, name)
        rows.append(row)
    for mode, entry in torch.items():
        if mode in rates:
            entry |= _rates(rates, mode, operations)
    return {
        "name": case.name,
        "flops_per_image": operations,
        "matmul_flops": statistics.median(rates[MATMUL]),
        "rows": rows,
        "torch": torch,
        "rounds": rates,
    }


def side(train: Callable[[int], float], images: int, plan: Plan) -> Side:
    """Images per second of `train`, which shows `images` images in a step."""
    steps = rounds.steps_for(train, plan.seconds)
    return lambda: steps * images / train(steps)


def torch_entry(case: Case, plan: Plan, mode: str, channel: Channel | None, parameters: set[int]) -> Entry:
    """What PyTorch says of the network that it built, or an error if that is another network."""
    assert channel
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    asked = {"depth": case.depth, "width": case.width, "stem": case.stem, "dtype": case.dtype}
    asked |= {
        "mode": mode,
        "device": device,
        "side": plan.side,
        "batch": plan.batch,
        "classes": 10,
        "threads": threads(),
    }
    try:
        answer = channel.ask(do="build", **asked)
    except PeerError as error:
        return {"error": str(error)}
    if parameters - {answer["parameters"]}:
        return {"error": f"PyTorch's network has {answer['parameters']} parameters, ours {sorted(parameters)}"}
    return {"parameters": answer["parameters"], "build_seconds": answer["seconds"]}


def _rates(rates: Rates, name: str, operations: int) -> Entry:
    """Speed in images, in arithmetic, and as a share of the matrix product's."""
    per_second = rounds.spread(rates[name])
    share = rounds.ratio(rates, name, MATMUL)
    return {
        "images_per_second": per_second,
        "flops": per_second["median"] * operations,
        "of_matmul": {key: value * operations for key, value in share.items()},
    }


def _of(rates: Rates, one: str, other: str) -> dict[str, float] | None:
    return rounds.ratio(rates, one, other) if one in rates and other in rates else None


def growth(entry: Mapping[str, Any]) -> list[Entry]:
    """How time and memory grow from the run alone to more: one entry for each row of several runs.

    time: of a step of all runs, in steps of the one alone.  further_run_bytes: what each run more than in the row
    before of the same strategy takes; it is the same from row to row if memory grows linearly.
    """
    first, *others = [row for row in entry["rows"] if "error" not in row]
    entries = []
    before: dict[str, Entry] = {first["strategy"]: first}
    for row in sorted(others, key=lambda row: row["runs"]):
        last = before.get(row["strategy"])
        further = None
        if last and last["bytes"] and last["devices"] == row["devices"] and last["runs"] < row["runs"]:
            further = (row["bytes"] - last["bytes"]) / (row["runs"] - last["runs"])
        ratio = row["of_one_run"]["median"] if row["of_one_run"] else None
        entries.append(
            {
                "runs": row["runs"],
                "strategy": row["strategy"],
                "time": ratio and row["runs"] / ratio,
                "bytes": row["bytes"],
                "further_run_bytes": further,
            }
        )
        before[row["strategy"]] = row
    return entries
