"""Titles and captions of charts: the effect shown, and the data and scale."""

import itertools
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.analysis.scale import NAMED, NAMES, SIZES
from plasticity_jax.analysis.studies import Study
from plasticity_jax.storage import results

MINUS = "\N{MINUS SIGN}"
MODELS = {
    "resnet": "ResNet",
    "mlp": "MLP",
    "logistic": "logistic regression",
    **{name: name.replace("resnet", "ResNet-") for name in NAMED},
}

Found = Mapping[Any, Mapping[int, float]]  # {what: {seed: value}}


def difference(found: Found, control: Hashable, other: Hashable) -> dict[int, float]:
    """The entry of `control` minus that of `other`, seed by seed; seeds missing in either are left out."""
    rest = found.get(other, {})
    return {seed: value - rest[seed] for seed, value in found.get(control, {}).items() if seed in rest}


def effect(name: str, by_seed: Mapping[int, float], unit: str = " points") -> str:
    """The mean over seeds with its 95% t interval, as `NAME: 2.64 points (95% interval 1.96 to 3.32, n = 5)`.

    Empty if there are no seeds; without the interval for a single seed.
    """
    if not by_seed:
        return ""
    low, high = results.interval(list(by_seed.values()))
    mean = float(np.mean(list(by_seed.values())))
    between = "" if low is None or high is None else f"95% interval {_number(low, mean)} to {_number(high, mean)}, "
    return f"{name}: {_number(mean, mean)}{unit} ({between}n = {len(by_seed)})"


def gap(found: Found, control: Hashable, other: Hashable, name: str = "", unit: str = " points") -> str:
    """The difference between a control and another branch, as `CONTROL - OTHER: 2.64 points (..)`."""
    return effect(name or f"{control} {MINUS} {other}", difference(found, control, other), unit)


def title(study: Study, *effects: str) -> str:
    """The effects joined by semicolons, or else the study's name; with a note while the study is in progress."""
    said = "; ".join(filter(None, effects)) or study.name.replace("_", " ") or "learning curves"
    return said if study.result else f"{said} (in progress)"


def about(study: Study, packs: Sequence[Mapping[str, Any]] = ()) -> str:
    """One line with data set, training images, model, optimiser, lengths and seeds; of all packs by default."""
    config, packs = study.config, packs or study.config["packs"]
    planned = [stage for pack in packs for _, plan in pack["plans"] for stage in plan]
    images = [f"{config['train_images']:,} train images"] if config["train_images"] else []
    noise = max(stage["data"]["label_noise"] for stage in planned)
    images += [f"{100 * noise:g}% of the labels wrong"] if noise else []
    rules = " and ".join(sorted({stage["optim"]["name"] for stage in planned}))
    failed = sum(run["status"] != "finished" for run in (study.result or {"runs": ()})["runs"])
    return ", ".join(
        [
            NAMES.get(config["dataset"], config["dataset"]),
            *images,
            _model([pack["model"] for pack in packs]),
            rules,
            _lengths(planned),
            _count(len(config["seeds"]), "seed"),
            *([f"{_count(failed, 'failed run')} left out"] if failed else []),
        ]
    )


def _model(models: Sequence[Mapping[str, Any]]) -> str:
    """The model's name and the sizes shared by all packs; only the names if there are several models."""
    names = list(dict.fromkeys(model["name"] for model in models))
    if len(names) > 1:
        return " / ".join(MODELS.get(name, name) for name in names)
    same = [size for size in SIZES.get(names[0], ()) if len({model[size] for model in models}) == 1]
    return " ".join([MODELS.get(names[0], names[0]), *(f"{size} {models[0][size]}" for size in same)])


def _lengths(planned: Sequence[Mapping[str, Any]]) -> str:
    """The most common length of each stage, such as `50 + 100 epochs`."""
    by_stage: dict[str, list[tuple[str, float, float]]] = {}
    for stage in planned:
        unit, length = ("steps", stage["steps"]) if stage["steps"] else ("epochs", stage["epochs"])
        by_stage.setdefault(stage["name"], []).append((unit, length, stage["until_accuracy"]))
    usual = [statistics.mode(lengths) for lengths in by_stage.values()]
    runs = [(each, len(list(group))) for each, group in itertools.groupby(usual)]
    text = " + ".join(f"{times} \N{MULTIPLICATION SIGN} {n:g}" if times > 1 else f"{n:g}" for (_, n, _), times in runs)
    fit = max(until for _, _, until in usual)
    return f"at most {text} {usual[-1][0]} (until {fit:.0%} train accuracy)" if fit else f"{text} {usual[-1][0]}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _number(value: float, mean: float) -> str:
    """With two decimals, unless the mean has three digits before them."""
    return f"{value:{'.2f' if abs(mean) < 100 else ',.0f'}}".replace("-", MINUS)
