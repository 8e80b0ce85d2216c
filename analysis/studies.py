"""A study read from a working directory: its config, measurements, and the values of each branch by seed.

    study = studies.read("runs/figure1")
    studies.values(study, "fresh")                                    {seed: the metric in percent}
    studies.values(study, "fresh", "train_accuracy", "end")           {seed: running train accuracy at the end}

A *label* names a branch at a point of the grid: `fresh`, `fresh[rate=10x]`, `fresh[depth=1,width=4]`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity_jax import analysis
from plasticity_jax.analysis.effects import transitions
from plasticity_jax.analysis.reading import sweeps
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.storage import results

WINDOW, END, START = "window", "end", "start"
EARLY = 1 / 3  # the fraction of a stage that START covers

When = str | float | transitions.At


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The content of one working directory.

    config: `config.json`.  result: `result.json`, None while the study is in progress.
    table: `analysis.load` with a column `label`; includes failed runs.
    """

    directory: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """The name that selects claims and figures, such as `multistage`; may be empty."""
        return self.config.get("name", "")

    @functools.cached_property
    def runs(self) -> Mapping[str, Mapping[str, Sequence["Run"]]]:
        """The runs by label and stage, in the order of the table; cached."""
        return _runs(self.table)

    def plot(self) -> list[Any]:
        """Its figures, as matplotlib figures; in a notebook, `display` shows each."""
        from plasticity_jax.analysis import figures  # imports this module, and needs matplotlib
        from plasticity_jax.analysis.plots import matplotlib_backend

        return [matplotlib_backend.draw(chart) for chart in figures.charts(self)]

    def claims(self) -> str:
        """The claims about this study with effect, interval and verdict, as the command `claims` prints them."""
        from plasticity_jax.analysis import verify  # imports this module

        return verify.table([self], verify.judge([self]))


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The measurements of one run in one stage, as columns in the order of the table.

    metric: indices into `metrics`.
    """

    pack: str
    id: str
    branch: str
    seed: int
    metrics: Mapping[str, int]
    step: np.ndarray
    epoch: np.ndarray
    metric: np.ndarray
    value: np.ndarray

    def of(self, metric: str) -> np.ndarray:
        """A mask of the rows of a metric."""
        return self.metric == self.metrics.get(metric, len(self.metrics))


def _runs(table: pd.DataFrame) -> dict[str, dict[str, list[Run]]]:
    keys = ["label", "stage", "pack", "run"]
    number = table.groupby(keys, sort=False, observed=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    order = order[number[order] >= 0]  # rows without a key belong to no run
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    code, names = pd.factorize(table.metric)
    metrics = {name: each for each, name in enumerate(names)}
    numbers = (table.step.to_numpy(), table.epoch.to_numpy(float), table.value.to_numpy(float))
    columns = [each[order] for each in (*numbers, code)]
    firsts = table[[*keys, "branch", "seed"]].iloc[order[starts]]
    runs: dict[str, dict[str, list[Run]]] = {}
    for (label, stage, pack, run, branch, seed), start, end in zip(
        firsts.itertuples(index=False, name=None), starts, [*starts[1:], len(order)], strict=True
    ):
        step, epoch, value, metric = (column[start:end] for column in columns)
        one = Run(pack, run, branch, int(seed), metrics, step, epoch, metric, value)
        runs.setdefault(label, {}).setdefault(stage, []).append(one)
    return runs


def read(directory: analysis.Directory) -> Study:
    """Reads the study in a working directory, finished or in progress.

    Raises:
      LabError: there is no study, it is damaged, or its `config.json` belongs to another one.
    """
    directory = Path(directory)
    config, table = analysis.load_config(directory), analysis.load(directory)
    _check_belongs(table, config, directory)
    result = analysis.load_result(directory) if analysis.has_result(directory) else None
    series = table.run.str.rpartition("/")[0]
    return Study(directory, config, result, table.assign(label=series.map(label_of)))


def read_all(given: Sequence[str]) -> Iterator[Study]:
    """The studies at the paths of a command line, each once; instead of a sweep, those of its studies that have begun.

    Raises:
      LabError: as `read`; or no study of a sweep has begun.
    """
    at = map(paths.given, given)
    each = (study for path in at for study in (sweeps.begun(path) if sweeps.is_sweep(path) else [path]))
    yield from map(read, analysis.distinct(each))


def _check_belongs(table: pd.DataFrame, config: Mapping[str, Any], directory: Path) -> None:
    """Raises a LabError if there are measurements that are not in the config's plan."""
    plans = [(pack["name"], plan) for pack in config["packs"] for _, plan in pack["plans"]]
    planned = {(pack, stage["name"], stage["branch"]) for pack, plan in plans for stage in plan}
    for pack, stage, branch in table[["pack", "stage", "branch"]].drop_duplicates().itertuples(index=False):
        if (pack, stage, branch) not in planned:
            what = f"{pack} / {stage} / {branch}"
            raise LabError(
                f"{directory} holds measurements of {what!r}, which its config.json does not plan: restore it"
            )


def label_of(series: str) -> str:
    """`branch[key=value,..]` for `branch,key=value,..`."""
    branch, _, point = series.partition(",")
    return f"{branch}[{point}]" if point else branch


def records(study: Study) -> list[Mapping[str, Any]]:
    """The stages of all plans of the study, as in `config.json`."""
    return [stage for pack in study.config["packs"] for _, plan in pack["plans"] for stage in plan]


def stages(study: Study, label: str) -> list[str]:
    """The stages that have rows of a label, in the order of the plan."""
    found = study.runs.get(label, {})
    return [name for name in dict.fromkeys(stage["name"] for stage in records(study)) if name in found]


def labels(study: Study) -> list[str]:
    """The labels of final runs, in the order of the table; while the study is in progress, of the rows so far."""
    parents = {stage["after"].partition("@")[0] for stage in records(study)}
    final = {
        (stage["name"], stage["branch"])
        for stage in records(study)
        if not parents & {stage["name"], f"{stage['name']}/{stage['branch']}"}
    }
    distinct = study.table[["stage", "branch", "label"]].drop_duplicates()  # first: the table may have a million rows
    return list(
        dict.fromkeys(
            label for stage, branch, label in distinct.itertuples(index=False, name=None) if (stage, branch) in final
        )
    )


def values(
    study: Study, label: str, metric: str = results.METRIC, at: When = WINDOW, stage: str = ""
) -> dict[int, float]:
    """A measurement of a label by seed, without seeds whose run failed or has not reached it.

    Args:
      metric: as in the table; `steps` is the number of updates in the stage.
      at: `window` for the mean over the study's window at the end of the stage (the paper's metric), `end` for the last
        value, `start` for the mean over the first third of the stage without step 0, an epoch of the stage, or a
        measure of a transition at a decay of the learning rate (`transitions.At`).  Only for stages that have ended.
      stage: if empty, the last stage of the label.
    """
    if label not in study.runs:
        return {}
    stage = stage or stages(study, label)[-1]
    bounds = learning_stages(study, label, stage) if isinstance(at, transitions.At) else []
    by_seed, lost, ends = {}, failed(study), _ends(study, stage)
    for run in study.runs[label].get(stage, []):
        if isinstance(at, transitions.At):
            value = _jump(run, metric, at, bounds)
        else:
            value = _value(run, metric, at, study.config["window"])
        ended = study.result is not None or np.fmax.reduce(run.epoch) >= ends.get(run.branch, math.inf) - 1e-9
        if math.isfinite(value) and (run.pack, run.id) not in lost and ended:
            by_seed[run.seed] = value
    return by_seed


def _value(run: Run, metric: str, at: str | float, window: float) -> float:
    end = np.fmax.reduce(run.step)
    if metric == "steps":
        return float(end)
    order = np.argsort(run.step)
    order = order[run.of(metric)[order]]
    step = run.step[order]
    if at == END:
        wanted = step == end
    elif at == WINDOW:  # as in `results.score`: the left end is excluded
        wanted = (step == end) | (end - step < window * end * (1 - 1e-9))
    elif at == START:
        wanted = (step > 0) & (step <= EARLY * end * (1 + 1e-9))
    else:
        wanted = np.isclose(run.epoch[order], float(at))
    return float(run.value[order][wanted].mean()) if wanted.any() else math.nan


def _jump(run: Run, metric: str, at: transitions.At, bounds: Sequence[float]) -> float:
    own = run.of(metric)
    curve = dict(zip(run.epoch[own].tolist(), run.value[own].tolist(), strict=True))
    return transitions.measure(at, curve, bounds, rises=metric.endswith("accuracy"))


def learning_stages(study: Study, label: str, stage: str) -> list[float]:
    """The planned epochs at which the learning stages of a label begin, and at which the last one ends."""
    branch, _, point = label.removesuffix("]").partition("[")
    wanted = set(point.split(",")) if point else set()
    for pack in study.config["packs"]:
        for hparams, plan in pack["plans"]:
            if wanted <= {f"{key}={value}" for key, value in hparams}:
                for record in plan:
                    if (record["name"], record["branch"]) == (stage, branch):
                        return [
                            0.0,
                            *(share * record["epochs"] for share in record["optim"]["milestones"]),
                            record["epochs"],
                        ]
    return []


def failed(study: Study) -> set[tuple[str, str]]:
    """(pack, run), as in the table, of failed runs; empty while the study is in progress."""
    runs = study.result["runs"] if study.result else []
    return {(run["pack"], run["run"].removeprefix(f"{run['pack']}/")) for run in runs if run["status"] != "finished"}


def _ends(study: Study, stage: str) -> dict[str, float]:
    """The largest planned number of epochs of a stage by branch; infinite if it depends on the data."""
    ends: dict[str, float] = {}
    for record in records(study):
        if record["name"] == stage:
            epochs = math.inf if may_end_early(record) else record["epochs"]
            ends[record["branch"]] = max(epochs, ends.get(record["branch"], -math.inf))
    return ends


def may_end_early(stage: Mapping[str, Any]) -> bool:
    """Whether the number of epochs of a stage of `config.json` depends on the data."""
    return bool(stage["steps"] or stage["until_accuracy"] or stage["optim"]["schedule"] == "autodecay")
