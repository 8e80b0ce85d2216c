"""The command: `make gpu`, or

    python -m tests.gpu --out DIR [--quick] [--minutes 9] [--data_dir DIR] [--torch_python PYTHON]

Three parts, of which the first takes a minute and the second three: whether the card computes correctly, how fast
each strategy trains, and Figure 1 in the remaining time.  DIR/gpu.json is written after each measurement, so that an
interrupted call is of use too; the same command keeps its results and continues.  Beside it are XLA's description of
the card (DIR/*.txtpb), the study as `analysis.collect` keeps it (DIR/figure1), and the output of all processes
(DIR/log.txt).
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.storage import workdir
from tests.benchmarks.channel import PeerError
from tests.gpu import card, cells, checks, figure, table
from tests.gpu.worker import Crew, Entry, answer, crew

MINUTES = {False: 9.0, True: 2.0}  # by --quick
SHARES = {False: (1.5 / 9, 3 / 9), True: (0.5, 0.25)}  # of them, for the first two parts at most
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # for --quick, on a CPU
STOPPED = 75
FIRST = 60.0  # seconds to find the card


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where everything small comes")
    parser.add_argument("--quick", action="store_true", help="try it on a CPU in two minutes; the numbers mean nothing")
    parser.add_argument("--minutes", type=float, help="when it is over; 9, or 2 with --quick")
    parser.add_argument(
        "--data_dir", default="", metavar="DIR", help="holds cifar10/ or cifar10_jpeg/, prepared by TFDS"
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for what is large; default: OUT-scratch")
    parser.add_argument("--torch_python", default=sys.executable, metavar="PYTHON", help="interpreter that has PyTorch")
    flags = parser.parse_args(argv)
    flags.minutes = flags.minutes or MINUTES[flags.quick]
    flags.scratch = flags.scratch or flags.out.with_name(f"{flags.out.name}-scratch")
    if flags.minutes <= 0:
        parser.error("--minutes must be above 0")
    return flags


class Report:
    """The results so far, and their file; `found` is read from it if an earlier call was interrupted."""

    def __init__(self, file: Path):
        self.file = file
        self.found: dict[str, Any] = {"finished": False, "checks": {}, "cells": [], "figure": {}, "notes": []}
        if file.exists():
            self.found |= workdir.read_json(file, "delete it, or give another --out") | {"finished": False, "notes": []}

    def write(self) -> None:
        workdir.write_json(self.file, self.found)

    def note(self, line: str) -> None:
        """Print a line, and keep it in the report."""
        print(line, flush=True)
        self.found["notes"].append(line)
        self.write()


def measure(flags: argparse.Namespace, report: Report, workers: Crew) -> None:
    """Run all parts, each within its time limit."""
    begun, total, content = time.monotonic(), 60 * flags.minutes, report.found

    def until(end: float) -> Callable[[], float]:
        return lambda: max(0.1, end - (time.monotonic() - begun))

    dump = flags.scratch / "dump"
    device = workers.hire(card.flags(dump))
    with device.within(min(FIRST, total)):
        facts = device.ask(do="describe", dump=str(dump))
    describe(facts, flags, report)
    first = until(total * SHARES[flags.quick][0])
    asked = prepare(flags, report, workers, first)
    plan = cells.quick() if flags.quick else cells.full()
    end = time.monotonic() - begun + total * SHARES[flags.quick][1]
    content["goal"] = {"images_per_second": cells.GOAL}
    cells.run(plan, workers, device, flags.torch_python, content["cells"], until(min(end, total)), report.write)
    content["goal"]["measured"] = cells.speed(content["cells"]) or None
    report.write()
    if asked:
        train(asked, flags, report, workers, until(total))


def describe(facts: Entry, flags: argparse.Namespace, report: Report) -> None:
    """Record the device, and write the file that describes it to XLA.

    Raises:
      LabError: there is no GPU, or what is in the directory was measured on another device or by another commit.
    """
    text = facts.pop("description")
    if facts["backend"] != "gpu" and not flags.quick:
        raise LabError(f"jax finds no GPU here, only {facts['device_kind']}; --quick tries everything on a CPU")
    for key in ("device_kind", "commit"):
        if (before := report.found.get("machine", facts)[key]) != facts[key]:
            raise LabError(
                f"{report.file} was measured with {key} {before}, and this is {facts[key]}; give another --out"
            )
    report.found["machine"] = facts
    if text:
        report.found["description"] = card.file_name(facts["device_kind"])
        (flags.out / report.found["description"]).write_text(text)
    report.note(f"{facts['device_kind']} ({facts['backend']}), jax {facts['packages'].get('jax')}")


def prepare(flags: argparse.Namespace, report: Report, workers: Crew, left: Callable[[], float]) -> Entry:
    """Run the first part while the programs of the third are compiled; the request for the third, or nothing."""
    content, asked = report.found, {"dataset": "", "data_dir": "", "quick": flags.quick}
    try:
        if not flags.quick:
            asked["dataset"], asked["data_dir"] = figure.locate(flags.data_dir)
    except (LabError, ImportError) as error:  # TFDS may be missing
        report.note(f"Figure 1 is left out: {error}")
        asked = {}

    def programs() -> None:
        worker = workers.hire()
        for do in ("plan_figure", "compile_figure"):
            with worker.within(left()):
                content["figure"] |= answer(lambda do=do: worker.ask(do=do, **asked))  # type: ignore[misc]

    compiling = workers.pool.submit(programs) if asked and "choice" not in content["figure"] else None
    wanted = {"golden step", *checks.COMPARISONS}
    if any("error" in content["checks"].get(title, {"error": ""}) for title in wanted):
        content["checks"] = {}
        model = "mlp" if flags.quick else "resnet"
        checks.run(workers, content["checks"], flags.scratch, left, report.write, model)
    if compiling:
        compiling.result()
    for line in table.checks(content["checks"]):
        report.note(line)
    return asked


def train(asked: Entry, flags: argparse.Namespace, report: Report, workers: Crew, left: Callable[[], float]) -> None:
    """The third part."""
    entry = report.found["figure"]
    if "choice" not in entry or not (flags.scratch / "figure1").exists():
        whole = figure.whole(flags.quick)
        images = entry.get("images") or figure.IMAGES
        entry["choice"] = figure.choose(cells.speed(report.found["cells"]), left(), images, whole)
        shutil.rmtree(flags.scratch / "figure1", ignore_errors=True)
    seeds, pretrain, tune = entry["choice"]
    report.note(f"Figure 1: {seeds} seeds, {pretrain} + {tune} epochs, {left():.0f} s left")
    figure.run(workers, entry, flags.scratch, flags.out / "figure1", left, report.write, **asked)


def main(argv: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    output.outlive_readers()
    flags = parse(argv)
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.quick:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CHEAP}"

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # handled only once
        raise SystemExit(STOPPED)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        report = Report(flags.out / "gpu.json")
        with crew(max(2, (os.cpu_count() or 2) // 2), flags.out / "log.txt") as workers:
            measure(flags, report, workers)
    except (LabError, PeerError) as error:
        print(f"error: {error} ({flags.out / 'log.txt'} may say more)", file=sys.stderr)
        return 1
    report.found["finished"] = True
    report.write()
    shutil.rmtree(flags.scratch, ignore_errors=True)
    print(table.markdown(report.found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
