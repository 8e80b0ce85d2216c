"""Every field of a stage reaches its runs: a field that is not compiled into their programs changes their rows."""

import dataclasses
import functools
import operator

import jax
import numpy as np
import pytest

from plasticity_jax.config import grid
from plasticity_jax.config.remedies import Remedy
from plasticity_jax.config.spec import Tasks
from plasticity_jax.data import datasets
from plasticity_jax.parallel import of_one, run_axis
from plasticity_jax.runner import schedule
from plasticity_jax.training import hyper, resets, schedules, state, step
from tests.support.tiny import CONVOLVED, DATASET, DETECTOR, IMAGES, PATCH, SHAPE, changed, groups, same, stage, study

NETWORK = state.network_like(CONVOLVED, SHAPE)
PAIR = datasets.join([DATASET, DATASET])
AUTODECAY = dict(schedule="autodecay", milestones=(0.3, 0.6))
# The stage in which a field has an effect, if it has none in a plain one; looked up by the longest matching path.
WHERE = {
    "ema": {"ema": 0.5},
    "label_smoothing": {"label_smoothing": 0.5},
    "activation_noise": {"activation_noise": 0.5},
    "eval_tail": {"eval_every": 3},
    "data.fraction": {"fraction": 0.5},
    "data.splits": {"recipe": "split", "splits": 3},
    "data.part": {"recipe": "split", "splits": 3},
    "data.uniform": {"recipe": "split", "splits": 3},
    "data.gamma": {"recipe": "blend", "fraction": 0.5},
    "data.patch": {"patch": changed(PATCH, share=0.5)},
    "data.tasks": {"tasks": Tasks("labels", 2)},
    "optim.momentum": {"momentum": 0.5},
    "optim.milestones": {"schedule": "step", "milestones": (0.5,)},
    "optim.detector": AUTODECAY,
    "reset": {"modules": ("head",), "shrink": 0.5, "perturb": 0.5},
}
# Other values of fields; other numbers and booleans are computed from the default.
OTHER = {
    "augment": "crop",
    "measure_steps": (2,),
    "name": "other",
    "branch": "other",
    "after": "before",
    "trained": ("head",),
    "data.classes": (0, 2),
    "data.recipe": "blend",
    "data.tasks.change": "pixels",
    "data.deficit": "blur",
    "optim.name": "adam",
    "optim.schedule": "cosine",
    "optim.decayed": "kernels",
    "optim.milestones": (0.25,),
    "optim.detector.name": "plateau",
    "reset.modules": ("all",),
    "reset.statistics": "all",
    "reset.optimiser": "modules",
    "reset.function": "own",
    "remedies": (Remedy("l2_init", "regulariser", (("strength", 0.1),)),),
}


def fields(record, prefix=""):
    """The dotted paths of all fields of a record, and of the records in it."""
    parts = [(prefix + field.name, getattr(record, field.name)) for field in dataclasses.fields(record)]
    return [
        p for path, value in parts for p in (fields(value, path + ".") if dataclasses.is_dataclass(value) else [path])
    ]


def other(path, value):
    """Another value of a field."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 if value else 0.5
    assert path in OTHER, f"give another value of the field {path} in OTHER"
    return OTHER[path]


def replaced(record, path, value):
    """The record with the field at a dotted path changed."""
    name, _, rest = path.partition(".")
    return changed(record, **{name: replaced(getattr(record, name), rest, value) if rest else value})


def flipped(record, *paths):
    for path in paths:
        record = replaced(record, path, other(path, operator.attrgetter(path)(record)))
    return record


def base(path):
    """A stage in which the field has an effect."""
    found = max((where for where in WHERE if f"{path}.".startswith(f"{where}.")), key=len, default="")
    return stage(epochs=8.0, **WHERE.get(found, {}))


def rows(record, dataset=PAIR):
    """Everything that the runs of a stage are given besides their programs: on disk, in time, and in numbers."""
    before = changed(stage(), name="before", branch="before")
    group = {group.name: group for group in groups(before, record)}[record.name]
    times = schedule.draw_up(group, study(), dataset)
    tasks = schedule.tasks(times, len(dataset.train_labels), state.like(NETWORK, record))
    begin = resets.factors(record.reset, state.like(NETWORK, record))
    kept = [(run.id, run.parent, run.stage.reset.optimiser == "all") for run in group.runs]
    return (group.name, kept, times.points, times.events), (tasks._replace(key=jax.random.key_data(tasks.key)), begin)


def differ(a, b):
    (told, numbers), (others, other_numbers) = rows(a), rows(b)
    return told != others or not same(numbers, other_numbers)


@pytest.mark.parametrize("path", fields(stage()))
def test_a_field_that_is_not_compiled_differs_between_rows(path):
    record = base(path)
    assert grid.compiled(record) != grid.compiled(flipped(record, path)) or differ(record, flipped(record, path))


def compiled_of(record, like):
    """What the programs of a stage compute, as text; the shapes of the rows are those of `like`."""
    one, (tasks, begin) = state.like(NETWORK, like), rows(like, DATASET)[1]
    task = run_axis.take(tasks, 0)._replace(key=jax.random.key(0))
    advance = functools.partial(step.advance, model=CONVOLVED, stage=record)
    first = functools.partial(of_one.begin, stage=record, function=None)
    calls = (
        (advance, one, (task, 3), IMAGES),
        (first, one, (of_one.Start(*NETWORK, begin), (one.params, one.stats, one.opt), np.True_)),
    )
    return [str(jax.make_jaxpr(call)(*args)) for call, *args in calls]


RICH = {"momentum": 0.9, "clip_norm": 1.0, "ema": 0.5, "recipe": "blend", "classes": (0, 2), "trained": ("head",)}


@pytest.mark.parametrize(
    "inside", [{}, {**RICH, **AUTODECAY, "patch": changed(PATCH, share=0.5)}], ids=["plain", "rich"]
)
def test_a_field_that_is_not_compiled_is_nowhere_in_the_programs(inside):
    record = stage(**inside)
    free = [path for path in fields(record) if flipped(record, path).shape() == record.shape()]
    assert len(free) > 30
    assert compiled_of(flipped(record, *free), like=record) == compiled_of(record, like=record)


@pytest.mark.parametrize("name", schedules.DETECTORS)
def test_numbers_of_detectors_are_nowhere_in_their_programs(name):
    record = stage(**AUTODECAY, detector=changed(DETECTOR, name=name))
    free = [f"optim.detector.{field}" for field in hyper.Watch._fields]
    assert flipped(record, *free).shape() == record.shape()

    def text(spec):
        def update(state, value, numbers):
            return schedules.detector(spec, numbers).update(state, value, True)

        return str(jax.make_jaxpr(update)(schedules.detector(spec).init(), 1.0, hyper.watch(spec.detector)))

    assert text(flipped(record, *free).optim) == text(record.optim)
