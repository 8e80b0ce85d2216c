"""Helpers for figures: a study's metric by label or by hyper-parameters, and as series and charts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects import contrasts
from plasticity_jax.analysis.effects.contrasts import Contrast
from plasticity_jax.analysis.plots import captions, curves
from plasticity_jax.analysis.plots.captions import Found
from plasticity_jax.analysis.plots.spec import Chart, Series, level
from plasticity_jax.analysis.studies import Study

FRESH, WARM, PERTURBED = "fresh", "pretrain+tune", "shrink-perturb"
ROLES = {FRESH: "fresh", WARM: "warm", "warm": "warm", PERTURBED: "other"}
ACCURACY, LOSS = "test accuracy (%)", "gap to fresh (points of test accuracy)"


def by_label(study: Study) -> dict[str, dict[int, float]]:
    """The metric of every label with a finished run, in the order of the plan."""
    packs = [pack["name"] for pack in study.config["packs"]]
    rows = study.table.drop_duplicates("label")
    place = {label: packs.index(pack) for label, pack in zip(rows.label, rows.pack, strict=True)}
    scores = {label: studies.values(study, label) for label in sorted(studies.labels(study), key=place.__getitem__)}
    return {label: values for label, values in scores.items() if values}


def by_point(study: Study, *keys: str) -> dict[tuple[str, ...], dict[int, float]]:
    """The metric by (branch, values of some hyper-parameters), for the labels that have all of these."""
    scores = [(*curves.parts(label), values) for label, values in by_label(study).items()]
    return {
        (branch, *(point[key] for key in keys)): values for branch, point, values in scores if point.keys() >= set(keys)
    }


def at(labels: Mapping[float, str], found: Found) -> dict[float, Mapping[int, float]]:
    """The values of each label, by its x."""
    return {x: found.get(label, {}) for x, label in labels.items()}


def by_step(study: Study, label: str, metric: str, stage: str) -> dict[int, dict[float, float]]:
    """seed -> step -> value of the runs of a label in a stage; non-finite values are left out."""
    rows = study.table[(study.table.label == label) & (study.table.metric == metric) & (study.table.stage == stage)]
    curves_of: dict[int, dict[float, float]] = {}
    for seed, step, value in zip(rows.seed, rows.step, rows.value.astype(float), strict=True):
        if np.isfinite(value):
            curves_of.setdefault(int(seed), {})[float(step)] = value
    return curves_of


def of(study: Study, contrast: Contrast) -> dict[int, float]:
    """A contrast seed by seed; empty if the study lacks a branch that it needs."""
    total = contrast(contrasts.known(study))
    return contrasts.by_seed(study, total) if total else {}


def numbered(pattern: str, labels: Iterable[str]) -> dict[float, str]:
    """The labels that fully match a pattern, by the number in its first group."""
    return {float(match[1]): label for label in labels if (match := re.fullmatch(pattern, label))}


def last(labels: Mapping[float, str]) -> list[str]:
    """The label with the largest x, as a list; empty if there are none."""
    return [labels[max(labels)]] if labels else []


def level_of(label: str, found: Found) -> Series:
    """A branch of `ROLES` as a horizontal line across the chart."""
    return level(label, found.get(label, {}), ROLES[label])


def chart(
    study: Study,
    name: str,
    effects: Sequence[str],
    x_label: str,
    series: Sequence[Series],
    y_label: str = ACCURACY,
    **how: Any,
) -> Chart:
    """A chart of the series that have points; without series if only horizontal lines would be left."""
    there = tuple(one for one in series if one.x)
    there = there if any(not one.level for one in there) else ()
    return Chart(name, captions.title(study, *effects), captions.about(study), x_label, y_label, there, **how)
