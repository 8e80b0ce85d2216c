"""The state of a job, read from its files; missing and damaged files give a state too, not an error."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.launch import attempts, jobs
from plasticity_jax.runner.units import count
from plasticity_jax.storage import locks

# waiting: not begun.  stopped: saved, can continue.  lost: status.json says running, but no process holds the lock.
# failed: has tries left.  gave up, diverged (all its runs): needs a user.
STATES = ("waiting", "running", "stopped", "lost", "failed", "gave up", "diverged", "finished")
FOR_GOOD = ("gave up", "diverged", "finished")  # launchers do not start these again
FAILURES = ("failed", "gave up", "diverged")
URGENCY = ("gave up", "diverged", "failed", "lost", "running", "stopped", "waiting", "finished")


@dataclasses.dataclass(frozen=True)
class State:
    """The state and progress of a job.

    state: one of `STATES`.  done, planned: training images.  rate: images/s, 0 if unknown.
    left: remaining seconds, None if unknown.  diverged: number of failed runs in a finished job.
    reason: why it failed, stopped or is damaged; may be empty.
    """

    state: str
    done: int = 0
    planned: int = 0
    rate: float = 0.0
    left: float | None = None
    diverged: int = 0
    reason: str = ""


def look(sweep: Path, job: jobs.Job) -> State:
    """The state of a job."""
    directory = jobs.directory(sweep, job)
    result, status = _json(directory / "result.json"), _json(directory / "status.json")
    if result is not None:
        return _ended(job, result)
    tried = attempts.read(directory)
    if status is None:
        reason = tried.errors[-1] if tried.errors else ""
        state = "gave up" if tried.gave_up else "failed" if tried.tries else "waiting"
        return State(state, planned=job.images, reason=reason)
    progress = _progress(job, status)
    said, error = status.get("status"), str(status.get("error", "") or "")
    if said == "running":
        if held(directory):
            return State("running", **progress)
        return State("lost", **progress, reason="its process was killed")
    if tried.gave_up:
        return State("gave up", **progress, reason=error or (tried.errors[-1] if tried.errors else ""))
    if said == "preempted":
        return State("stopped", **progress)
    if said == "failed":
        return State("failed", **progress, reason=error)
    return State("lost", **progress, reason="its status.json is damaged")


def _ended(job: jobs.Job, result: Mapping[str, Any]) -> State:
    runs = result.get("runs")
    if result.get("status") not in ("finished", "failed") or not isinstance(runs, list):
        return State("lost", planned=job.images, reason="its result.json is damaged; launch it again to repair it")
    lost = sum(not isinstance(run, dict) or run.get("status") != "finished" for run in runs)
    images = _number(result.get("images"))
    state = "finished" if result["status"] == "finished" else "diverged"
    return State(
        state, int(images), int(images), diverged=lost, reason=f"{count(lost, 'run')} diverged" if lost else ""
    )


def _progress(job: jobs.Job, status: Mapping[str, Any]) -> dict[str, Any]:
    planned = int(_number(status.get("images_planned"))) or job.images
    left = status.get("seconds_left")
    return {
        "done": min(int(_number(status.get("images"))), planned),
        "planned": planned,
        "rate": _number(status.get("images_per_second")),
        "left": None if left is None else _number(left),
    }


def held(directory: Path) -> bool:
    """Whether a process holds the lock of a working directory."""
    return locks.held(directory / ".lock")


def _json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing, {} if it is damaged."""
    try:
        content = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300
    return float(value) if good else 0.0
