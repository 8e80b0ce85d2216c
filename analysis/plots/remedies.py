"""Figures of `configs/remedies.py`: every remedy beside fresh and warm weights, and streams task by task."""

from collections.abc import Mapping

from plasticity_jax.analysis import remedies, studies
from plasticity_jax.analysis.derived import Chosen
from plasticity_jax.analysis.plots import sketch
from plasticity_jax.analysis.plots.captions import gap
from plasticity_jax.analysis.plots.spec import Chart, Series, across, level, series
from plasticity_jax.analysis.remedies import FRESH, WARM
from plasticity_jax.analysis.studies import Study

LABELS = {remedies.ONLINE: "accuracy of training at the end of a task (%)"}


def charts(study: Study) -> list[Chart]:
    """The accuracy of each remedy with the setting that was chosen; of a stream also against the number of the task."""
    terms = remedies.treated(study)
    found = {name: term.by_seed(study) for name, term in terms.items()}
    names = [name for name in found if name not in (FRESH, WARM)]
    metric = remedies.measured(study.name)[0]
    drawn = [across("with a remedy", dict(enumerate(found[name] for name in names)))]
    drawn += [level(name, found.get(name, {}), role) for name, role in ((FRESH, "fresh"), (WARM, "warm"))]
    ticks = tuple((float(x), name.replace("_", "\n")) for x, name in enumerate(names))
    effects, label = [gap(found, FRESH, WARM)], LABELS.get(metric, sketch.ACCURACY)
    made = [sketch.chart(study, study.name, effects, "", drawn, label, ticks=ticks, joined=False)]
    if tasks := _task_epochs(study):
        by_task = [_by_task(study, name, term, metric, tasks) for name, term in terms.items()]
        made.append(
            sketch.chart(study, f"{study.name}_tasks", effects, "task", by_task, label, form="curve", scale="log")
        )
    return made


def _task_epochs(study: Study) -> int:
    """Epochs of a task; 0 where there is no stream."""
    streams = [stage["data"]["tasks"] for stage in studies.records(study)]
    return max((each["epochs"] for each in streams if each["change"] != "none"), default=0)


def _by_task(study: Study, name: str, term: Chosen, metric: str, epochs: int) -> Series:
    """A branch against the number of the task, with the setting of most seeds."""
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
