"""Writes working directories of real configs without training: planned runs with invented numbers.

The test accuracy of a run climbs from 10% to its level over the first half of its stage and stays there.
"""

import importlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax import study_config
from plasticity_jax.analysis import studies
from plasticity_jax.config import parse
from plasticity_jax.config.plan import Group, Run, unfold
from plasticity_jax.configs import base

FIT = 98.0  # train accuracy at the end of every stage

Level = Callable[[str, int], float]  # of a label and a seed


def preset(study: str, arg: str = "small", **changed: Any) -> ConfigDict:
    """`configs/STUDY.py:ARG`, with some top-level values changed."""
    config = importlib.import_module(f"plasticity_jax.configs.{study}").get_config(arg)
    config.update(changed)
    return config


def plan(name: str = "", seeds: Collection[int] = (0, 1, 2), **stages: ConfigDict) -> ConfigDict:
    """A custom study with some stages, on digits."""
    config = base.base(name)
    config.dataset, config.seeds = "digits", tuple(seeds)
    config.stages = ConfigDict(stages, sort_keys=False)
    return config


def write(
    root: Path,
    config: ConfigDict,
    level: Level,
    stages: Collection[str] = (),
    failed: Collection[str] = (),
    at: float = 1,
) -> studies.Study:
    """Writes the study and reads it.

    Args:
      level: percent of a label and a seed; of a stage that others continue from, on the label of that stage.
      stages: those that have begun, in progress; all, and a result, if empty.
      failed: runs, as `fresh/seed0`, that did not come to an end.
      at: the share of the last begun stage that is done.
    """
    study = study_config.parse(config)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps(parse.describe(study)))
    entries = []
    for pack in study.packs:
        for group in unfold(pack, study.seeds):
            if not stages or group.name in stages:
                done = at if stages and group.name == list(stages)[-1] else 1.0
                _write_group(root / pack.name / group.name, group, level, done)
            for run in group.runs:
                if run.final:
                    name = f"{pack.name}/{run.id}" if len(study.packs) > 1 else run.id
                    status = "failed" if run.id in failed else "finished"
                    names = {"run": name, "pack": pack.name, "seed": run.seed, "branch": run.branch}
                    entries.append({**names, "hparams": dict(run.hparams), "status": status})
    if not stages:
        (root / "result.json").write_text(json.dumps({"runs": entries}))
    return studies.read(root)


def label(run: Run) -> str:
    point = ",".join(f"{key}={value}" for key, value in run.hparams)
    return f"{run.branch}[{point}]" if point else run.branch


def epochs(run: Run) -> list[float]:
    """When a run is evaluated: at the start, every tenth of its stage, and at its end, early if it stops on a fit."""
    length = run.stage.steps / 10 or run.stage.epochs
    length = 10.0 + run.seed if run.stage.until_accuracy else length
    return [length * tenth / 10 for tenth in range(11)]


def _write_group(folder: Path, group: Group, level: Level, done: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("w") as file:
        for run in group.runs:
            common = {"run": run.id, "seed": run.seed, "branch": run.branch, "hparams": dict(run.hparams)}
            points = epochs(run)
            for epoch in points[: round(10 * done) + 1]:
                climbed = min(1.0, 2 * epoch / points[-1])
                top = level(label(run), run.seed)
                values = {"test_accuracy": 10 + (top - 10) * climbed}
                if epoch:
                    values["train_accuracy"] = 20 + (FIT - 20) * climbed
                for metric, value in values.items():
                    row = {**common, "stage": group.name, "epoch": epoch, "step": round(20 * epoch)}
                    file.write(json.dumps({**row, "metric": metric, "value": value}) + "\n")
