"""Finished studies with known numbers, without training: a config, and a world that defines the measurements."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from plasticity_jax import analysis, study_config
from plasticity_jax.analysis import studies
from plasticity_jax.config import parse, plan
from plasticity_jax.configs import base

EPOCHS = (10.0,)  # epochs of evaluation besides the end
STEPS = 10  # updates per epoch by default

# (label, stage, seed, metric, epoch) -> value; `epoch` is infinite at the end of a stage; None for no such row
World = Callable[[str, str, int, str, float], float | None]


def study(
    config: ConfigDict,
    world: World,
    finished: bool = True,
    failed: Collection[str] = (),
    directory: Path = Path("somewhere"),
    metrics: Collection[str] = ("test_accuracy", "train_accuracy"),
    epochs: Callable[[float], Collection[float]] = lambda end: EPOCHS,
) -> studies.Study:
    """What `studies.read` gives of the study that a config describes; `failed` are runs as `result.json` names them.

    Every one of `metrics` that the world has is measured at the end of each stage, and at `epochs` of its length.
    """
    parsed = study_config.parse(config)
    rows: list[dict[str, Any]] = []
    runs = []
    for pack in parsed.packs:
        for group in plan.unfold(pack, parsed.seeds):
            for run in group.runs:
                label = studies.label_of(run.id.rpartition("/")[0])
                common = dict(pack=pack.name, run=run.id, seed=run.seed, branch=run.branch, **dict(run.hparams))
                rows += [
                    {**common, "stage": run.stage.name, **row}
                    for row in _measurements(run, label, world, metrics, epochs)
                ]
                if run.final:
                    name = f"{pack.name}/{run.id}" if len(parsed.packs) > 1 else run.id
                    status = "failed" if name in failed else "finished"
                    runs.append(dict(run=name, pack=pack.name, seed=run.seed, branch=run.branch, status=status))
    table = pd.DataFrame(rows)
    table = table.assign(label=table.run.str.rpartition("/")[0].map(studies.label_of))
    return studies.Study(directory, parse.describe(parsed), {"runs": runs} if finished else None, table)


def _measurements(
    run: plan.Run, label: str, world: World, metrics: Collection[str], epochs: Callable[[float], Collection[float]]
) -> list[dict[str, Any]]:
    end = run.stage.epochs or float(run.stage.steps)  # of stages that count updates each is called an epoch
    updates = world(label, run.stage.name, run.seed, "steps", float("inf")) or STEPS * end
    rows = []
    for epoch in (*(epoch for epoch in epochs(end) if epoch < end), end):
        for metric in metrics:
            value = world(label, run.stage.name, run.seed, metric, epoch if epoch < end else float("inf"))
            if value is not None:
                step = round(updates * epoch / end)
                rows.append(dict(epoch=epoch, step=step, metric=metric, value=float(value)))
    return rows


def branches(name: str, *names: str, seeds: int = 5) -> ConfigDict:
    """A study of one stage with fresh branches of these names."""
    config = base.base(name)
    config.seeds = tuple(range(seeds))
    config.control = names[0]
    changes: Mapping[str, Any] = {branch: {} for branch in names}
    config.stages.tune = base.stage(epochs=20, branches=changes)
    return config


def values(by_label: Mapping[str, Mapping[int, float]]) -> World:
    """A world with the given test accuracies at all times; others are not measured."""
    return lambda label, stage, seed, metric, epoch: (
        by_label.get(label, {}).get(seed) if metric == "test_accuracy" else None
    )


def write(study: studies.Study, directory: Path) -> Path:
    """The same study as a working directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(study.config))
    study.table.drop(columns="label").to_parquet(directory / analysis.COMPACT)
    if study.result is not None:
        (directory / "result.json").write_text(json.dumps(study.result))
    return directory
