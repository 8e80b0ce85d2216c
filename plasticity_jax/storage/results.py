"""Computes the reported numbers from the rows of runs: the metric, intervals, paired gaps and a table.

All accuracies are in percent.  Every interval is the 95% interval of a mean by Student's t; the *gap* is the control
minus a treatment, paired by seed, so that what runs of a seed share (data, batches) cancels.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

METRIC = "test_accuracy"
LINES = "lines.json"  # the loss between networks, see `plasticity_jax.lines`
LEVEL = 0.95
WIDTH = 100  # columns of the table


def score(rows: Iterable[Mapping[str, Any]], window: float) -> float:
    """The metric of one run: its mean test accuracy over the last fraction `window` of its last stage.

    With 500 epochs and window 0.2 these are epochs 401 to 500, as in Berariu et al. 2021 (the box in figure 1).  The
    final evaluation always counts, however small the window.

    Args:
      rows: rows of one run's last stage, each with `metric`, `step` (updates since the stage began) and `value`.
      window: fraction of the stage, in (0, 1].
    Returns:
      Percent; NaN if the run was never evaluated, or diverged.
    """
    points = [(row["step"], row["value"]) for row in rows if row["metric"] == METRIC]
    if not points:
        return math.nan
    last = max(step for step, _ in points)
    reach = window * last * (1 - 1e-9)  # the window is open on its left; rounding must not include step 400 of 500
    inside = [value for step, value in points if step == last or last - step < reach]
    return math.nan if None in inside else float(np.mean(inside))


def interval(values: Sequence[float], level: float = LEVEL) -> list[float | None]:
    """The t interval of the mean of n values as [low, high], with level 95% by default.

    [None, None] if n < 2 or all values are equal: zero scatter of a few values is no certainty.
    """
    if len(values) < 2 or min(values) == max(values):
        return [None, None]
    # The quantile of Student's t, imported when all is trained: a start waits 0.1 s for it, and 1 s for scipy.stats.
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / math.sqrt(len(values))
    return [float(np.mean(values) - half), float(np.mean(values) + half)]


def label(run: Mapping[str, Any]) -> str:
    """`branch`, or `branch[key=value,..]` at a point of a grid."""
    point = ",".join(f"{key}={value}" for key, value in run["hparams"].items())
    return f"{run['branch']}[{point}]" if point else run["branch"]


def summarise(runs: Sequence[Mapping[str, Any]], control: str) -> dict[str, Any]:
    """Means of branches and paired differences between them, ready for JSON.

    Only finished runs with a finite metric count.  A pair is two runs of one seed that agree on every
    hyper-parameter that both have; a seed that is missing on either side leaves the pair, and `n` says so.

    Args:
      runs: `{run, seed, branch, hparams, status, test_accuracy}` each; other keys are ignored.
      control: the branch that the others are compared with.
    Returns:
      branches: label -> {mean, sd (ddof 1), n, ci95: [low, high]}.
      gap: {control, treatment, mean, sd, n, ci95} in points, control minus the first other branch; None without one.
      contrasts: the same for every pair of a control and another branch, `gap` first.
      What cannot be computed from so few runs is None.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(label(run), []).append(run)
    scores = {name: _finished(members) for name, members in groups.items()}
    contrasts = [
        {"control": one, "treatment": other, **_moments(_differences(scores[one], scores[other]))}
        for other in groups
        for one in groups
        if groups[one][0]["branch"] == control != groups[other][0]["branch"]
        and _agree(groups[one][0]["hparams"], groups[other][0]["hparams"])
    ]
    return {
        "branches": {name: _moments(list(by_seed.values())) for name, by_seed in scores.items()},
        "gap": contrasts[0] if contrasts else None,
        "contrasts": contrasts,
    }


def combine(parts: Sequence[Mapping[str, Any]], dataset: str, control: str) -> dict[str, Any]:
    """Combines parts of a study into one result; `failed` only if all runs failed.

    Args:
      parts: {runs, images, seconds: {kind: seconds}} each, the runs as `summarise` takes them, and if it is known
        train_seconds: {"PACK/GROUP": seconds}; other keys are ignored.
      dataset, control: those of the study.
    Returns:
      What `result.json` holds.
    """
    runs = [run for part in parts for run in part["runs"]]
    seconds, by_group = _sums(part["seconds"] for part in parts), _sums(part.get("train_seconds", {}) for part in parts)
    images = sum(part["images"] for part in parts)
    return {
        "status": "finished" if any(run["status"] == "finished" for run in runs) else "failed",
        "dataset": dataset,
        **summarise(runs, control),
        "runs": runs,
        "images": images,
        "images_per_second": images / seconds["train"] if seconds.get("train") else None,
        "seconds": seconds,
        "train_seconds": by_group,
    }


def table(result: Mapping[str, Any]) -> str:
    """The table printed at the end: branches, paired gaps and failed runs; at most 100 columns.

    Args:
      result: what `summarise` returned, and `runs` as given to it, if the failed ones are to be named.
    """
    names = [
        *result["branches"],
        *(f"{pair['control']} - {pair['treatment']}" for pair in result["contrasts"]),
        "branch",
    ]
    width = min(max(map(len, names)), WIDTH - 45)
    lines = _row("branch", ["mean", "sd", "n", "95% interval"], width)
    for name, moments in result["branches"].items():
        lines += _row(name, _cells(moments), width)
    if result["contrasts"]:
        lines += ["", *_row("gap", ["mean", "sd", "n", "95% interval, paired t"], width)]
    for pair in result["contrasts"]:
        lines += _row(f"{pair['control']} - {pair['treatment']}", _cells(pair), width)
    failed = [run["run"] for run in result.get("runs", ()) if run["status"] != "finished"]
    if failed:
        lines += ["", *_wrap(f"failed, left out ({len(failed)}): {', '.join(failed)}")]
    return "\n".join(["test accuracy (%)", *lines])


def _sums(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def _finished(runs: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The metric by seed."""
    done = {run["seed"]: run["test_accuracy"] for run in runs if run["status"] == "finished"}
    return {seed: value for seed, value in done.items() if value is not None and math.isfinite(value)}


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _differences(control: Mapping[int, float], treatment: Mapping[int, float]) -> list[float]:
    return [control[seed] - treatment[seed] for seed in control if seed in treatment]


def _moments(values: Sequence[float]) -> dict[str, Any]:
    n = len(values)
    return {
        "mean": float(np.mean(values)) if n else None,
        "sd": float(np.std(values, ddof=1)) if n > 1 else None,
        "n": n,
        "ci95": interval(values),
    }


def _cells(moments: Mapping[str, Any]) -> list[str]:
    low, high = moments["ci95"]
    between = "-" if low is None else f"[{low:.2f}, {high:.2f}]"
    return [_number(moments["mean"]), _number(moments["sd"]), str(moments["n"]), between]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _row(name: str, cells: Sequence[str], width: int) -> list[str]:
    """A row of the table; a name too long for its column is on a line above its numbers."""
    above = _wrap(name) if len(name) > width else []
    return [*above, f"{'' if above else name:<{width}}  {cells[0]:>7} {cells[1]:>6} {cells[2]:>4}  {cells[3]}"]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)
