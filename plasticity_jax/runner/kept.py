"""Evaluates a saved network of a study again."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax.config import paths, spec
from plasticity_jax.data import datasets, subsets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.runner import prepare, schedule, windows
from plasticity_jax.storage import conditions, networks
from plasticity_jax.training import evaluation, state, step


@conditions.pinned()
def evaluate(
    directory: str | Path,
    branch: str,
    seed: int,
    stage: str = "",
    *,
    epoch: int = spec.END,
    hparams: Mapping[str, Any] | None = None,
    model: nn.Module | None = None,
    dataset: Dataset | None = None,
) -> dict[str, float]:
    """Evaluates a run of a finished stage on its test images; all other arguments are those of `load`.

    Args:
      dataset: arrays (`datasets.from_arrays`) to use instead of the study's data.

    Returns:
      `loss` (mean cross-entropy), `accuracy` (percent) and `images`.

    Raises:
      LabError: no such run, its stage has not ended, or the data are not available.
    """
    network, params, stats = networks.load(directory, branch, seed, stage, epoch=epoch, hparams=hparams, model=model)
    study, _, group, row = networks.find(paths.given(directory), branch, seed, stage, hparams or {})
    data = datasets.seen(dataset, study.image_size) if dataset else datasets.load(*study.data)
    run = group.runs[row]
    span = data.span(run.stage.data.member)
    tests = subsets.test_images(run.stage.data, run.seed, data.test_labels, span, study.test_images)
    source = schedule.plain_source(tests, data.test_labels, classes=schedule.told_apart(run, data))
    images = step.Images(data.test_images, *prepare.scale(study, data), side=data.side)
    plain = dataclasses.replace(run.stage, remedies=(), ema=0.0)
    one = state.create(params, stats, plain).replace(opt=(), clock=())  # the form that `evaluation` expects
    batch = min(study.eval_batch, len(tests))
    measure = jax.jit(functools.partial(evaluation.evaluate, model=network, batch=batch))
    sums = dict.fromkeys(evaluation.SUMS, 0.0)
    end, size = -(-len(tests) // batch), max(1, windows.budget(images) // batch)  # batches, and those of a window
    with conditions.pinned(study.matmul_precision):
        for first in range(0, end, size):
            last = min(end, first + size)
            some = np.append(tests[first * batch : last * batch], tests[-1])
            part = jax.device_get(measure(one, source, (first, last), windows.only(images, some, size * batch + 1)))
            sums = {name: total + float(np.sum(part[name], dtype=np.float64)) for name, total in sums.items()}
    count = sums["count"]
    return {"loss": sums["loss"] / count, "accuracy": 100.0 * sums["correct"] / count, "images": int(count)}
