"""Sweeps planned without measurement, and config files that take seconds to train."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from plasticity_jax.config import parse, spec
from plasticity_jax.launch import jobs, planner
from plasticity_jax.storage import workdir
from tests.support import small

RATE = "stages.tune.optim.learning_rate"

FILE = """
from plasticity_jax.configs.base import base, optimiser, stage, sweep

def one(widths, rates):
    config = base()
    config.update(dataset="digits", train_images=96, test_images=50, seeds=(0, 1), diagnostics=(), eval_batch=25)
    config.update(strategy="loop", window=0.5, checkpoint_seconds=0.0)
    config.model.update(name="mlp", depth=1, width=8)
    rule = optimiser("momentum", learning_rate=0.1)
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=2.0, batch_size=16, eval_every=1, optim=rule)
    branches = {"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}
    config.stages.tune = stage(epochs=3.0, batch_size=16, eval_every=1, optim=rule, branches=branches)
    config.grid = (("model.width", widths), ("stages.tune.optim.learning_rate", rates))
    return config

def get_config(arg=""):
    if arg == "two":
        return sweep({"a": one((4,), (0.1,)), "b": one((4, 8), (0.1, 0.2))})
    return one((4, 8), (0.1, 0.2))
"""


def file(folder: Path) -> Path:
    """A config file: two widths and two rates on some digits; with `:two`, two studies."""
    path = folder / "config.py"
    path.write_text(FILE)
    return path


def config(**top) -> ConfigDict:
    """The study of `small` on some digits."""
    return small.config(**{"dataset": "digits", "train_images": 96, "test_images": 50} | top)


def price(key: str, pack: spec.Pack, points: tuple[int, ...], seeds: int) -> planner.Price:
    """A market in which each point and seed costs one run, one second, one byte and 100 images."""
    count = len(points) * seeds
    return planner.Price(count, 100 * count, float(count), count)


def planned(
    sweep: Path, studies: Mapping[str, spec.Study] | ConfigDict, budget: planner.Budget | None = None
) -> tuple[jobs.Job, ...]:
    """Plans a sweep and writes it."""
    studies = planner.studies(studies) if isinstance(studies, ConfigDict) else studies
    listed = planner.plan(studies, (), price, budget or planner.Budget())
    for key, study in studies.items():
        workdir.write_json(sweep / key / "config.json", parse.describe(study))
    jobs.write(sweep, listed)
    return listed
