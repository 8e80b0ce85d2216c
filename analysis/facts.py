"""Facts about a study other than its measurements: status, machine and cost.

    facts.read(study)           finished or in progress, from a working directory or one exported by `collect`

Facts from files that are missing, as in exported directories, are empty.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import analysis, strict_json
from plasticity_jax.analysis import studies
from plasticity_jax.analysis.reading import sweeps
from plasticity_jax.analysis.studies import Study
from plasticity_jax.errors import LabError

# Names of the states in status.json, for studies without a result.
STATES = {"running": "in progress", "preempted": "stopped early", "failed": "failed"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a study, as text and numbers.

    status: `finished`, `failed`, `in progress` or `stopped early`.  detail: the progress, or why it failed.
    runs: the number of final runs so far.  failed: the number of them that diverged.
    device: as `CPU, 2 threads` or `2 x NVIDIA H200`.
    commit: of the code, empty if unknown; `changed`: whether the code had uncommitted changes.
    images: trained on, over all runs.  seconds: by kind of work, over all restarts.
    compilations, from_cache: programs that the last start compiled, or loaded from the cache.
    """

    status: str
    detail: str
    runs: int
    failed: int
    device: str
    versions: str
    commit: str
    changed: bool
    images: int | None
    images_per_second: float | None
    seconds: Mapping[str, float]
    compilations: int | None
    from_cache: int | None


def read(study: Study) -> Facts:
    """The facts of a study."""
    environment, status = _environment(study.directory), _status(study.directory)
    result = study.result or {}
    state = _text(result.get("status")) or STATES.get(_text(status.get("status")), "in progress")
    packages = _object(environment.get("packages"))
    ends = study.table[study.table.label.isin(studies.labels(study))]
    return Facts(
        status=state,
        detail="" if study.result else _detail(status),
        runs=len(ends[["pack", "run"]].drop_duplicates()),
        failed=sum(run["status"] != "finished" for run in result.get("runs", ())),
        device=_device(environment),
        versions=", ".join(f"{name} {packages[name]}" for name in ("jax", "flax") if packages.get(name)),
        commit=_text(environment.get("commit")),
        changed=bool(environment.get("dirty")),
        images=_number(result.get("images")),
        images_per_second=_number(result.get("images_per_second")),
        seconds=_numbers(result.get("seconds")) or _seconds(study.directory),
        compilations=status.get("compilations"),
        from_cache=status.get("from_cache"),
    )


def duration(seconds: float) -> str:
    """Formats seconds as `41 s`, `12 min 05 s` or `3 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _environment(directory: Path) -> dict[str, Any]:
    try:
        return analysis.load_environment(directory)
    except LabError:
        return {}


def _status(directory: Path) -> dict[str, Any]:
    """The status and its detail, from `status.json`, or for a study of a sweep from its jobs."""
    if sweeps.is_study(directory):
        done, count = sweeps.progress(directory)
        return {"pack": f"{done} of {count} jobs have finished"}
    return _json(directory / "status.json")


def _detail(status: Mapping[str, Any]) -> str:
    if status.get("error"):
        return str(status["error"])
    where = " / ".join(str(status[key]) for key in ("pack", "stage") if status.get(key))
    time = str(status.get("time", "")).replace("T", " ").replace("+00:00", " UTC")
    return ", ".join(part for part in (where, f"since {time}" if time else "") if part)


def _device(environment: Mapping[str, Any]) -> str:
    if not environment:
        return ""
    if environment.get("backend") == "cpu":
        threads = environment.get("cpu_threads", environment.get("devices", 1))
        return f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    count = environment.get("devices", 1)
    return f"{count} \N{MULTIPLICATION SIGN} {environment.get('device_kind', 'device')}"


def _seconds(directory: Path) -> dict[str, float]:
    """The sum of the clocks of all packs."""
    total: dict[str, float] = {}
    for path in sorted([*directory.glob("*/clock.json"), *directory.glob("jobs/*/*/clock.json")]):
        for kind, spent in _numbers(_json(path)).items():
            total[kind] = total.get(kind, 0.0) + spent
    return total


def _json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if it is missing or damaged, since it holds no measurements."""
    try:
        content = strict_json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return _object(content)


# Values of a wrong type are treated as missing, for the same reason.


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else None


def _numbers(value: Any) -> dict[str, float]:
    return {key: each for key, each in _object(value).items() if _number(each) is not None}
