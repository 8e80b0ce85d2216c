"""What a study costs besides training: checkpoints, records, status, the launch, and (apart) evaluation.

    python -m tests.benchmarks.overhead --config=configs/multistage.py:small [--json FILE] [flags of the study]

*Measured* are seconds: of each checkpoint, row of records, status and evaluation in a run of the study that is
shortened to a few steps a stage and saves whenever it can; of the training programs alone; and from the command to the
first step, with an empty cache of compiled programs (cold) and with a full one (warm).  *Computed* is the time that
each would take in the whole study, by its timetable and intervals, as a share of its training time.
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import plasticity_jax
from plasticity_jax import experiment, strict_json
from plasticity_jax.errors import LabError
from plasticity_jax.runner import evaluation, output, progress, saver, stage_loop
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.storage import metrics, tensorboard, workdir
from tests.benchmarks import machine, share, start

STEPS = 24  # of each stage of the shortened study
SECONDS = 2.0  # for one measurement of a training program
TOGETHER = ("checkpoint", "records", "status", "launch")  # the overheads that have goals
Durations = dict[str, dict[str, list[float]]]  # kind -> stage -> seconds of each event


@dataclasses.dataclass(frozen=True)
class Stage:
    """Measurements of one stage: seconds of one event of each kind, and its length and frequency in the whole study."""

    name: str
    train: float  # seconds of the whole stage in its training program alone
    evaluations: int
    kept: int  # networks kept for good
    evaluate: float
    records: float
    checkpoint: float
    keep: float


def events(arguments: Sequence[str], steps: int) -> tuple[Durations, dict[str, Any]]:
    """Seconds of every event in a shortened run of the study, and the choices that it made."""
    wanted = share.config_of([*arguments, "--workdir=unused"])
    wanted.checkpoint_seconds = 0.0
    for stage in wanted.stages.values():
        stage.update(steps=steps, eval_every=0, eval_tail=0)
    durations: Durations = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch, contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(saver, "CHECKPOINT_SHARE", 0))
        for owner, name, kind, of in (
            (saver.Saver, "save", "checkpoint", lambda own, *_: own.rolling.directory.parent.name),
            (stage_loop, "_keep", "keep", lambda group, *_: group.name),
            (evaluation, "measure", "evaluate", lambda group, *_: group.name),
            (metrics.Table, "append", "rows", lambda table, *_: table.path.parent.name),
            (tensorboard.Board, "append", "board", lambda board, *_: board._name.rpartition("@")[2]),
            (experiment, "_running", "status", lambda *_: ""),
        ):
            stack.enter_context(mock.patch.object(owner, name, _timed(getattr(owner, name), kind, of, durations)))
        plasticity_jax.run(wanted, Path(scratch) / "run")
        choices = workdir.read_json(Path(scratch) / "run" / "environment.json")["choices"]
    return durations, choices


def _timed(real: Callable[..., Any], kind: str, of: Callable[..., str], durations: Durations) -> Callable[..., Any]:
    @functools.wraps(real)
    def timed(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*args, **options)
        finally:
            durations.setdefault(kind, {}).setdefault(of(*args), []).append(time.perf_counter() - began)

    return timed


def stages(durations: Durations, rates: Iterator[tuple[Timetable, float]]) -> list[Stage]:
    """The seconds of the events and how often they occur; medians, as the first of a kind is slower."""
    result = []
    for times, rate in rates:
        name = times.group.name
        rows, board = (durations[kind][name] for kind in ("rows", "board"))
        result.append(
            Stage(
                name,
                train=times.images() / rate,
                evaluations=len(times.events),
                kept=len(times.group.keep) + 1,
                evaluate=statistics.median(durations["evaluate"][name]),
                records=statistics.median(rows) + statistics.median(board),
                checkpoint=statistics.median(durations["checkpoint"][name]),
                keep=statistics.median(durations["keep"][name]),
            )
        )
    return result


def shares(parts: Sequence[Stage], status: float, launch: float, checkpoint_seconds: float) -> dict[str, float]:
    """Each kind of work in the whole study as a share of its training time.

    Args:
      parts: the stages.
      status: seconds of writing status.json once.
      launch: seconds from the command to the first step, without compiling and evaluating.
      checkpoint_seconds: of the study.
    """
    train = sum(part.train for part in parts)
    spent = dict.fromkeys(("checkpoint", "records", "evaluate"), 0.0)
    for part in parts:
        pause = max(checkpoint_seconds, saver.CHECKPOINT_SHARE * part.checkpoint)
        working = part.train + part.evaluations * part.evaluate
        spent["checkpoint"] += working / pause * part.checkpoint + part.kept * part.keep
        spent["records"] += part.evaluations * part.records
        spent["evaluate"] += part.evaluations * part.evaluate
    spent["status"] = (train + spent["evaluate"]) / progress.REPORT_SECONDS * status
    spent["launch"] = launch
    by_kind = {kind: seconds / train for kind, seconds in spent.items()}
    return by_kind | {"together": sum(by_kind[kind] for kind in TOGETHER)}


def launches(arguments: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds to the first step and their parts, `cold` and `warm`; `launch` is all except compiling and evaluating."""
    timings = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        for name in ("cold", "warm"):
            spent, parts = start.seconds(arguments, Path(scratch))
            parts = {kind: part for kind, part in parts.items() if kind != "total"}
            busy = parts.get("compile", 0.0) + parts.get("evaluate", 0.0) + parts.get("train", 0.0)
            timings[name] = {"first_step": spent, "launch": spent - busy, **parts}
    return timings


def run(arguments: Sequence[str], steps: int = STEPS, seconds: float = SECONDS) -> dict[str, Any]:
    """All measurements, ready for JSON.

    Raises:
      LabError, RuntimeError: the study cannot be run.
    """
    wanted = share.config_of([*arguments, "--workdir=unused"])
    with contextlib.redirect_stdout(sys.stderr):  # the study's own table is not ours
        launched = launches(arguments)
        durations, choices = events(arguments, steps)
        parts = stages(durations, share.rates(wanted, choices, seconds))
    status = statistics.median(durations["status"][""])
    return {
        "arguments": list(arguments),
        "machine": machine.facts(),
        "launches": launched,
        "stages": [dataclasses.asdict(part) for part in parts],
        "status": status,
        "checkpoint_seconds": wanted.checkpoint_seconds,
        "train_seconds": sum(part.train for part in parts),
        "shares": shares(parts, status, launched["warm"]["launch"], wanted.checkpoint_seconds),
    }


def table(report: Mapping[str, Any]) -> str:
    """What `run` found, as text."""
    lines = [f"{' '.join(report['arguments'])}", "", "measured: seconds to the first step"]
    for name, parts in report["launches"].items():
        named = ", ".join(f"{kind} {spent:.2f}" for kind, spent in parts.items() if kind != "first_step")
        lines.append(f"  {name}  {parts['first_step']:.2f}: {named}")
    lines += [
        "",
        "measured: milliseconds of one",
        f"  {'stage':<12}{'evaluation':>12}{'records':>10}{'checkpoint':>12}",
    ]
    lines += [
        f"  {part['name']:<12}{1e3 * part['evaluate']:>12.1f}{1e3 * part['records']:>10.2f}"
        f"{1e3 * part['checkpoint']:>12.1f}"
        for part in report["stages"]
    ]
    lines += [f"  status {1e3 * report['status']:.2f}", ""]
    lines += [f"computed: share of {report['train_seconds']:,.0f} s of training, checkpoints at most every"]
    lines[-1] += f" {report['checkpoint_seconds']:g} s, programs compiled before"
    order = [*TOGETHER, "together", "evaluate"]
    lines += [f"  {kind:<12}{100 * report['shares'][kind]:>8.3f} %" for kind in order]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit status."""
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each stage of the cut study")
    options, arguments = parser.parse_known_args(argv)
    try:
        report = run(arguments, options.steps)
    except (LabError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if options.json:
        options.json.write_text(strict_json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
