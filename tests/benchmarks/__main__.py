"""The command.

    python -m tests.benchmarks [--quick | --gpu] [--json FILE] [--torch_python PYTHON] [--strategies map,vmap] ..

Prints one table; with --json, writes all numbers to a file after each case.  Progress goes to stderr.
"""

import argparse
import contextlib
import dataclasses
import functools
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is shared with PyTorch

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import cpu, run_axis
from plasticity_jax.runner import output
from plasticity_jax.runner.progress import Progress, duration
from tests.benchmarks import cases, machine, ours, plans, share, table
from tests.benchmarks.channel import Channel, PeerError, opened


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="try everything in a minute; the numbers mean nothing")
    size.add_argument("--gpu", action="store_true", help="the set for one GPU, bfloat16")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--torch_python", default=sys.executable, metavar="PYTHON", help="interpreter that has PyTorch")
    parser.add_argument(
        "--strategies", default="", help=f"some of {','.join(run_axis.STRATEGIES)}; default: map and auto's"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    parser.add_argument("--real", metavar="ARGUMENTS", help="of plasticity_jax.main, for the real run; empty for none")
    flags = parser.parse_args(argv)
    unknown = set(filter(None, flags.strategies.split(","))) - set(run_axis.STRATEGIES)
    if unknown:
        parser.error(
            f"--strategies: there is no {', '.join(sorted(unknown))}; choose of {', '.join(run_axis.STRATEGIES)}"
        )
    if flags.rounds is not None and flags.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return flags


def plan_of(flags: argparse.Namespace) -> plans.Plan:
    """The plan that the flags ask for."""
    make = plans.quick if flags.quick else plans.gpu if flags.gpu else plans.cpu
    plan = make(list(filter(None, flags.strategies.split(","))))
    return dataclasses.replace(
        plan,
        rounds=flags.rounds or plan.rounds,
        real=plan.real if flags.real is None else flags.real,
    )


class Bar:
    """Progress in expected seconds: `BUILD` for each program that is built, and for a round what the plan says."""

    BUILD = 10.0

    def __init__(self, plan: plans.Plan):
        self.round = {case.name: (len(case.points) + len(plan.modes)) * plan.seconds * 1.3 for case in plan.cases}
        builds = sum(len(case.points) + len(plan.modes) for case in plan.cases)
        self.total = builds * self.BUILD + sum(self.round.values()) * plan.rounds + (60.0 if plan.real else 0.0)
        self.done, self.start, self.line = 0.0, time.monotonic(), Progress(0)

    def tick(self, where: str, what: str) -> None:
        """Count one finished thing."""
        self.done += self.round[where] if what == "round" else self.BUILD
        left = (self.total - self.done) * (time.monotonic() - self.start) / self.done
        self.line.write(f"{where}: {what}  ETA {duration(max(left, 0))}")


def measure(plan: plans.Plan, torch_python: str, file: Path | None) -> dict[str, Any]:
    """Everything; `file` is written after each case."""
    report: dict[str, Any] = {"plan": dataclasses.asdict(plan), "machine": machine.facts(), "cases": [], "growth": []}
    bar = Bar(plan)
    with contextlib.ExitStack() as stack:
        channel: Channel | None = None
        try:
            channel = stack.enter_context(opened(torch_python))
            report["torch"] = channel.ask(do="about")
        except PeerError as error:
            channel = None
            report["torch"] = {"error": f"{error}; all else is measured (pip install -e '.[bench]', or --torch_python)"}
            bar.line.note(report["torch"]["error"])
        report["real"] = _real(plan, bar)
        dataset = ours.noise(plan)
        for case in plan.cases:
            entry = cases.measure(case, plan, dataset, channel, functools.partial(bar.tick, case.name))
            report["cases"].append(entry)
            report["growth"] += cases.growth(entry) if case.name == plan.growth else []
            if file:
                file.write_text(strict_json.dumps(report, indent=1) + "\n")
    return report


def _real(plan: plans.Plan, bar: Bar) -> dict[str, Any] | None:
    if not plan.real:
        return None
    bar.line.note(f"real run: {plan.real}")
    with contextlib.redirect_stdout(sys.stderr):  # the study prints its own table
        result = share.real(shlex.split(plan.real), plan.seconds)
    bar.done += 60.0
    return result


def main(argv: Sequence[str]) -> int:
    """Measure, print and write; the exit status."""
    output.outlive_readers()
    flags = parse(argv)
    logging.getLogger("jax").setLevel(logging.WARNING)
    cpu.use_all_cores()
    if flags.gpu and machine.facts()["backend"] != "gpu":
        print(f"error: --gpu: jax finds no GPU here, only {machine.facts()['device_kind']}", file=sys.stderr)
        return 1
    try:
        report = measure(plan_of(flags), flags.torch_python, flags.json)
    except (LabError, PeerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table.text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
