"""Show every job of a sweep: state, progress, remaining time, reasons of failures, and what to run again.

    python -m launch.status SWEEP [--json]

Reads files only, so it works on any machine that can read the sweep's directory, also while jobs run.

Exit status: 0 every job finished, 1 one gave up, failed or diverged, 75 otherwise.
"""

import collections
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError
from plasticity_jax.launch import job_states, jobs
from plasticity_jax.launch.arguments import AGAIN, FAILED, FINISHED, Parser, directory
from plasticity_jax.launch.job_states import State
from plasticity_jax.launch.jobs import Job
from plasticity_jax.runner import output
from plasticity_jax.runner.units import count, duration

SHOWN = 60  # largest number of jobs in the table; failed jobs come first if there are more


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the state of a sweep; returns the exit status."""
    output.outlive_readers()
    parser = Parser("launch.status", __doc__.splitlines()[0])
    parser.add_argument("sweep", type=directory, help="the --workdir of a sweep")
    parser.add_argument("--json", action="store_true", help="print JSON, with all jobs")
    options = parser.parse_args(argv)
    try:
        states = look(options.sweep)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    print(strict_json.dumps(described(states), indent=2) if options.json else report(options.sweep, states))
    return outcome(states)


def look(sweep: Path) -> dict[Job, State]:
    """The state of each job, in the order of sweep.json.

    Raises:
      LabError: there is no sweep, or its sweep.json is damaged.
    """
    return {job: job_states.look(sweep, job) for job in jobs.read(sweep)}


def outcome(states: Mapping[Job, State]) -> int:
    """The exit status for these states."""
    counts = collections.Counter(state.state for state in states.values())
    if counts["finished"] == len(states):
        return FINISHED
    return FAILED if any(counts[name] for name in job_states.FAILURES) else AGAIN


def described(states: Mapping[Job, State]) -> dict[str, object]:
    """All states as plain JSON values."""
    counts = collections.Counter(state.state for state in states.values())
    listed = [{**dataclasses.asdict(job), **dataclasses.asdict(state)} for job, state in states.items()]
    return {"exit_status": outcome(states), "counts": dict(counts), "jobs": listed}


def report(sweep: Path, states: Mapping[Job, State]) -> str:
    """The table of jobs, a summary, and commands to run again."""
    shown = list(states)
    if len(shown) > SHOWN:
        shown = sorted(shown, key=lambda job: job_states.URGENCY.index(states[job].state))[:SHOWN]
    width = max([3, *(len(job.name) for job in shown)])
    lines = [f"{'job':<{width}}  {'state':<9} {'runs':>6} {'done':>6} {'images/s':>9}  {'ETA':<12}"]
    lines += [_row(job, states[job], width) for job in shown]
    if len(shown) < len(states):
        lines.append(f"... {len(states) - len(shown)} more jobs; --json shows all")
    return "\n".join([*lines, "", _summary(states), *_commands(sweep, states)])


def _row(job: Job, state: State, width: int) -> str:
    rate = f"{state.rate:,.0f}" if state.rate and state.state == "running" else "-"
    left = duration(state.left) if state.left is not None and state.state == "running" else "-"
    done = f"{100 * state.done / max(state.planned, 1):.0f} %"
    line = f"{job.name:<{width}}  {state.state:<9} {job.runs:>6,} {done:>6} {rate:>9}  {left:<12}  {state.reason}"
    return line.rstrip()


def _summary(states: Mapping[Job, State]) -> str:
    counts = collections.Counter(state.state for state in states.values())
    done, planned = (sum(getattr(state, key) for state in states.values()) for key in ("done", "planned"))
    rate = sum(state.rate for state in states.values() if state.state == "running")
    parts = [
        f"{count(len(states), 'job')}: "
        + ", ".join(f"{counts[name]} {name}" for name in job_states.STATES if counts[name]),
        f"{100 * done / max(planned, 1):.1f} % of {planned:,} images",
        f"{rate:,.0f} images/s, ETA {duration((planned - done) / rate)}" if rate else "",
    ]
    return "; ".join(part for part in parts if part)


def _commands(sweep: Path, states: Mapping[Job, State]) -> list[str]:
    """Commands that run the missing jobs."""
    again = [job for job, state in states.items() if state.state not in ("running", "finished", "diverged")]
    lost = [job for job, state in states.items() if state.state == "diverged"]
    lines = []
    if again:
        lines.append(f"{count(len(again), 'job')} to run; the failed ones get new tries:")
        lines.append(f"  plasticity local --workdir={shlex.quote(str(sweep))}")
    if lost:
        lines.append("all runs diverged, and would again; to train them again nevertheless, delete these first:")
        lines += [f"  {shlex.quote(str(jobs.directory(sweep, job)))}" for job in lost]
    return lines


if __name__ == "__main__":
    sys.exit(main())
