"""Learning curves of a study with several stages as charts, in the form of figures 1 and 11 of Berariu et al. 2021.

    curves.learning(studies.read("runs/figure1"))

Epochs of tuning count from 0, those of pretraining are negative: a stage ends where the stages that continue from it
begin.  The window of the metric is marked.  There is one chart per pack.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.plots import captions, spec
from plasticity_jax.analysis.plots.spec import Chart, Line, Series
from plasticity_jax.analysis.studies import Study
from plasticity_jax.storage import results

FIRST = 0.1  # the first fraction of a stage, which does not count for the range of the y axis

Key = tuple[str, str]  # (stage, branch)
Records = Mapping[Key, Sequence[Mapping[str, Any]]]  # the config's records of each, one per point of the grid


def learning(
    study: Study, name: str = "curves", metric: str = results.METRIC, names: Mapping[str, str] | None = None
) -> list[Chart]:
    """The curves of a metric, one chart per pack; empty before the first evaluation.

    Series of the same name are the stages of one branch.

    Args:
      name: of the chart; with several packs `NAME_PACK`.
      metric: of the table.
      names: the labels to show, and the name of each in the legend; all labels by default.
    """
    table = study.table[(study.table.metric == metric) & np.isfinite(study.table.value.astype(float))]
    packs = [pack for pack in study.config["packs"] if (table.pack == pack["name"]).any()]
    lone = len(study.config["packs"]) == 1
    charts = []
    for pack in packs:
        called = name if lone else f"{name}_{pack['name']}"
        chart = _chart(study, pack, table[table.pack == pack["name"]], called, metric, names)
        charts += [chart] if chart.series else []
    return charts


def stage(study: Study, name: str, metric: str) -> Series:
    """The curve of one stage over all its runs, with epochs from 0."""
    table = study.table[study.table.metric == metric]
    lines = _lines(study, table[(table.stage == name) & np.isfinite(table.value.astype(float))], 0.0, None)
    return average(name, *lines, "warm")


def records_of(pack: Mapping[str, Any]) -> dict[Key, list[Mapping[str, Any]]]:
    """The stage records of a pack in `config.json`, by stage and branch."""
    stages: dict[Key, list[Mapping[str, Any]]] = {}
    for _, plan in pack["plans"]:
        for stage in plan:
            stages.setdefault((stage["name"], stage["branch"]), []).append(stage)
    return stages


def heirs(stages: Records, key: Key) -> list[Key]:
    """The stages that continue from a stage.  The field `after` is `init` or `STAGE[/BRANCH][@EPOCH]`."""
    later = []
    for other, records in stages.items():
        name, _, branch = records[0]["after"].partition("@")[0].partition("/")
        if name == key[0] and branch in ("", key[1]):
            later.append(other)
    return later


def ends(stages: Records, key: Key) -> set[Key]:
    """The last stages reached from a stage: itself if no stage continues from it."""
    return set().union(*(ends(stages, heir) for heir in heirs(stages, key))) or {key}


def start(stages: Records, lengths: Mapping[Key, float], key: Key) -> float:
    """The x of a stage's start: 0 for a last stage, else such that it ends where the first of its heirs begins."""
    begins = [start(stages, lengths, heir) for heir in heirs(stages, key)]
    return min(begins) - lengths[key] if begins else 0.0


def planned(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The epochs of a stage; None if not known in advance (a length in steps, an early end, a grid over lengths)."""
    lengths = {None if studies.may_end_early(stage) else stage["epochs"] for stage in records}
    return lengths.pop() if len(lengths) == 1 else None


def parts(label: str) -> tuple[str, dict[str, str]]:
    """Branch and point of a label: `fresh[depth=1,width=4]` is ("fresh", {"depth": "1", "width": "4"})."""
    branch, _, point = label.removesuffix("]").partition("[")
    return branch, dict(pair.split("=", 1) for pair in re.split(r",(?=[^,=]+=)", point) if pair)


def average(name: str, lines: Sequence[Line], left_out: Sequence[Line] = (), role: str = "other") -> Series:
    """Curves as a series, with their interpolated mean over the range that all of them cover.

    Args:
      left_out: curves that are drawn but do not count for the mean.
    """
    by_seed: dict[int, dict[float, float]] = {}
    if lines:
        epochs = np.unique(np.concatenate([line.x for line in lines]))
        epochs = epochs[
            (epochs >= max(line.x[0] for line in lines)) & (epochs <= min(line.x[-1] for line in lines))
        ].tolist()
        by_seed = {
            line.seed: dict(zip(epochs, np.interp(epochs, line.x, line.y).tolist(), strict=True)) for line in lines
        }
    return dataclasses.replace(spec.series(name, by_seed, role), lines=(*lines, *left_out))


def _chart(
    study: Study,
    pack: Mapping[str, Any],
    table: pd.DataFrame,
    name: str,
    metric: str,
    names: Mapping[str, str] | None,
) -> Chart:
    stages = records_of(pack)
    rows = {key: table[(table.stage == key[0]) & (table.branch == key[1])] for key in stages}
    lengths = {key: planned(stages[key]) or rows[key].epoch.max() for key in stages if len(rows[key])}
    lengths = {key: lengths.get(key, planned(stages[key]) or 0.0) for key in stages}
    called, role = _labels(study, stages, rows, names)
    drawn: list[Series] = []
    for key in sorted(stages, key=lambda key: not heirs(stages, key)):  # the last stages on top
        for label, runs in rows[key].groupby("label", sort=False):
            then = sorted(_leads_to(stages, key, label, called))
            waiting = not then and heirs(stages, key) and (names is None or not called)  # no last stage yet
            if not then and not waiting:
                continue
            own_end = heirs(stages, key) and planned(stages[key]) is None
            lines = _lines(study, runs, start(stages, lengths, key), lengths[key] if own_end else None)
            if len(then) == 1:
                drawn.append(average(called[then[0]], *lines, role[then[0]]))
            else:
                drawn.append(average(label, *lines, "shared" if then else "other"))
    last = {key for key in stages if not heirs(stages, key)}
    until = {planned(stages[key]) for key in last}
    end = until.pop() if len(until) == 1 else None
    before = any(heirs(stages, key) and len(rows[key]) for key in stages)
    by_label = {called[label]: studies.values(study, label, metric) for label in called}
    control = [called[label] for label in called if parts(label)[0] == study.config["control"]]
    others = [name for name in by_label if name not in control]
    unit = " points" if metric.endswith("accuracy") else ""
    headline = captions.gap(by_label, control[0], others[0], unit=unit) if control and others else ""
    what = metric.replace("_", " ")
    return Chart(
        name=name,
        title=captions.title(study, f"{what}, {headline}" if headline and metric != results.METRIC else headline),
        about=captions.about(study, [pack]),
        x_label=f"training epochs{' (pretraining on negative values)' if before else ''}",
        y_label=f"{what} (%)" if metric.endswith("accuracy") else what,
        series=tuple(drawn),
        form="curve",
        window=(end * (1 - study.config["window"]), end) if end else None,
        origin=before,
        view=view(drawn, least=0.5 if metric.endswith("accuracy") else 0.0),
    )


def _labels(
    study: Study, stages: Records, rows: Mapping[Key, pd.DataFrame], names: Mapping[str, str] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The name and the role of each shown label; a branch at several points of a grid gets a colour for each."""
    last = list(dict.fromkeys(label for key in stages if not heirs(stages, key) for label in rows[key].label))
    called = {label: label for label in last} if names is None else {k: v for k, v in names.items() if k in last}
    branches = [parts(label)[0] for label in called]
    control = study.config["control"]
    goes_on = [branch for (_, branch), each in stages.items() if each[0]["after"] != "init" and branch in branches]
    roles = {**dict.fromkeys(goes_on[:1], "warm"), control: "fresh"}
    alone = {label: branches.count(branch) == 1 for label, branch in zip(called, branches, strict=True)}
    return called, {label: roles.get(parts(label)[0], "other") if alone[label] else "other" for label in called}


def _leads_to(stages: Records, key: Key, label: str, called: Mapping[str, str]) -> set[str]:
    """The labels of the last stages that continue from a run of this label and stage."""
    if not heirs(stages, key):
        return {label} & set(called)
    branches, point = {branch for _, branch in ends(stages, key)}, parts(label)[1].items()
    return {other for other in called if parts(other)[0] in branches and point <= parts(other)[1].items()}


def _lines(study: Study, runs: pd.DataFrame, begin: float, until: float | None) -> tuple[list[Line], list[Line]]:
    """The lines of the finished and of the failed runs.

    Args:
      begin: the x of the stage's start.
      until: the length of the stage, if runs have different lengths: they are aligned at the end.
    """
    failed = studies.failed(study)
    by_failure: tuple[list[Line], list[Line]] = [], []
    for (pack, run), points in runs.groupby(["pack", "run"], sort=False):
        points = points.sort_values("epoch")
        shift = begin + (0.0 if until is None else until - points.epoch.max())
        x, y = (points.epoch + shift).tolist(), points.value.astype(float).tolist()
        by_failure[(pack, run) in failed].append(Line(int(points.seed.iloc[0]), tuple(x), tuple(y)))
    return by_failure


def view(shown: Sequence[Series], first: float = FIRST, least: float = 0.5) -> tuple[float, float] | None:
    """The range of the y axis: all runs without the first fraction of each curve, plus a margin of at least `least`."""
    late = [
        y
        for one in shown
        for line in one.lines
        for x, y in zip(line.x, line.y, strict=True)
        if x >= line.x[0] + first * (line.x[-1] - line.x[0])
    ]
    if not late:
        return None
    margin = max(0.08 * (max(late) - min(late)), least)
    return min(late) - margin, max(late) + margin
