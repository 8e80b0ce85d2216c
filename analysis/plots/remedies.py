"""Figures of `configs/remedies.py`: every remedy beside fresh and warm networks, and accuracy by task for streams."""

import statistics
from collections.abc import Mapping
from typing import Any

from plasticity_jax.analysis import remedies, studies
from plasticity_jax.analysis.effects.derived import Chosen
from plasticity_jax.analysis.plots import sketch
from plasticity_jax.analysis.plots.captions import difference, gap
from plasticity_jax.analysis.plots.spec import Chart, Series, across, level, series
from plasticity_jax.analysis.remedies import FRESH, WARM
from plasticity_jax.analysis.studies import Study

LIFT = "above a warm start without remedy (points)"
LABELS = {remedies.ONLINE: "accuracy at the end of a task (%)"}
EACH, BEST = 8, 4  # remedies in a chart, and in a chart over tasks


def charts(study: Study) -> list[Chart]:
    """The gain of each remedy over the warm start, paired by seed, best first; for streams also accuracy by task."""
    terms = remedies.treated(study)
    by_name = {name: term.by_seed(study) for name, term in terms.items()}
    lifted = {name: difference(by_name, name, WARM) for name in by_name if name != WARM}
    names = [name for name, values in lifted.items() if name != FRESH and values]
    names.sort(key=lambda name: -statistics.fmean(lifted[name].values()))
    effects, made = [gap(by_name, FRESH, WARM)], []
    for first in range(0, len(names), EACH):
        here = names[first : first + EACH]
        drawn = [across("with a remedy", {x: lifted[name] for x, name in enumerate(here)})]
        drawn += [level(FRESH, lifted[FRESH], "fresh")] if lifted.get(FRESH) else []
        ticks = tuple((float(x), name.replace("_", "\n")) for x, name in enumerate(here))
        part = f"_{first // EACH + 1}" * (len(names) > EACH)
        how: dict[str, Any] = {"ticks": ticks, "joined": False, "zero": True}
        made.append(sketch.chart(study, f"{study.name}{part}", effects, "", drawn, LIFT, **how))
    if tasks := _task_epochs(study):
        metric = remedies.measured(study.name)[0]
        shown = [name for name in (FRESH, WARM) if name in terms] + names[:BEST]
        by_task = [_by_task(study, name, terms[name], metric, tasks) for name in shown]
        label = LABELS.get(metric, sketch.ACCURACY)
        made.append(sketch.chart(study, f"{study.name}_tasks", effects, "task", by_task, label, form="curve"))
    return made


def _task_epochs(study: Study) -> int:
    """The epochs of a task; 0 if the study is not a stream of tasks."""
    streams = [stage["data"]["tasks"] for stage in studies.records(study)]
    return max((each["epochs"] for each in streams if each["change"] != "none"), default=0)


def _by_task(study: Study, name: str, term: Chosen, metric: str, epochs: int) -> Series:
    """A branch over the number of the task, with the setting that most seeds chose."""
    picked = list(term.choices(study).values())
    label = max(dict.fromkeys(picked), key=picked.count) if picked else name
    lost = studies.failed(study)
    by_seed: dict[int, Mapping[float, float]] = {
        run.seed: {
            epoch / epochs: value
            for epoch, value in zip(run.epoch[run.of(metric)], run.value[run.of(metric)], strict=True)
        }
        for runs in study.runs.get(label, {}).values()
        for run in runs
        if (run.pack, run.id) not in lost
    }
    return series(name, by_seed, {FRESH: "fresh", WARM: "warm"}.get(name, "other"))
