"""The loss on the straight line between two saved networks."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax.config import paths
from plasticity_jax.data import datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.diagnostics.geometry import barrier, line
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import run_axis
from plasticity_jax.runner import prepare, schedule, windows
from plasticity_jax.runner.instruments import probes
from plasticity_jax.storage import conditions, networks
from plasticity_jax.training import measuring, state
from plasticity_jax.training.inputs import Images


@conditions.pinned()
def connectivity(
    first: tuple[str | Path, Mapping[str, Any]],
    second: tuple[str | Path, Mapping[str, Any]],
    *,
    points: int = 11,
    images: int = 2048,
    model: nn.Module | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """The mean training loss at equally spaced points on the line between two saved networks of one architecture.

    Linear mode connectivity (Frankle et al. 2020, arXiv 1912.05671, section 2).  BatchNorm's statistics are recomputed
    at each point, on the images used; the network computes in float32.

    Args:
      first, second: (working directory, other arguments of `load`: branch, seed, stage, epoch, hparams).
      points: number of points, including both ends.
      images: number of training images, spread over the pool of the second network's stage.
      model: the custom module that the studies were run with, if any.
      dataset: the arrays that the second study was run with, if any.

    Returns:
      `loss`, a list with one number per point, and the `barrier`.

    Raises:
      LabError: no such run, its stage has not ended, the networks differ in shape, or the data are not available.
    """
    (_, start, _), (network, end, stats) = (
        networks.load(where, **which, model=model) for where, which in (first, second)
    )
    shapes = [jax.tree.map(np.shape, params) for params in (start, end)]
    if shapes[0] != shapes[1]:
        raise LabError(
            "the two networks have different parameters, so there is no line between them; give two of one model"
        )
    where, which = second
    study, pack, group, row = networks.find(
        paths.given(where), which["branch"], which["seed"], which.get("stage", ""), which.get("hparams") or {}
    )
    data = datasets.seen(dataset, study.image_size) if dataset else datasets.load(*study.data)
    timetables = prepare.draw_up(pack, study, data)
    times = timetables[group.name]
    probe = list(probes(times, timetables, images))[row]
    every = Images(data.train_images, *prepare.scale(study, data), side=data.side)
    shown = windows.only(every, probe.index)
    plain = dataclasses.replace(times.group.runs[row].stage, remedies=(), ema=0.0)
    task = run_axis.take(schedule.tasks(times, max(len(pool.indices) for pool in times.pools)), row)

    @jax.jit
    def look(start: Any, end: Any, row: measuring.Measured, shown: Images) -> Any:
        one = state.create(end, stats, plain)
        subject = measuring.subject_of(one, row, shown, model=network, stage=plain)
        losses = line(subject, start, end, points)
        return losses, barrier(losses)

    measured = measuring.Measured(task._replace(remedies={}, watch=()), probe, end, start, np.True_, np.True_)
    losses, height = jax.device_get(look(start, end, measured, shown))
    return {"loss": [float(value) for value in losses], "barrier": float(height)}
