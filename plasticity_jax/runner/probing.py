"""Trainability of a saved network: fits new targets from it and, for comparison, from fresh weights."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax.config import paths, spec
from plasticity_jax.data import batches, datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.runner import prepare, schedule, windows
from plasticity_jax.storage import conditions, networks
from plasticity_jax.training import hyper, state, step
from plasticity_jax.training.inputs import Images, Task


@conditions.pinned()
def trainability(
    directory: str | Path,
    branch: str,
    seed: int,
    stage: str = "",
    *,
    epoch: int = spec.END,
    hparams: Mapping[str, Any] | None = None,
    model: nn.Module | None = None,
    dataset: Dataset | None = None,
    steps: int = 2000,
    images: int = 1024,
) -> dict[str, dict[str, list[float]]]:
    """Fits random labels for a fixed number of steps, from a saved network and from the initial weights of its seed.

    Random labels are independent of the images, so this measures optimisation only, similar to Lyle et al. 2023,
    "Understanding plasticity in neural networks" (arXiv 2303.01486).  Both branches use the same images, labels and
    batches, and a new optimiser state: the optimiser of the run's stage with a constant learning rate, without
    remedies.  Writes nothing; all other arguments are those of `evaluate`.

    Args:
      steps: number of training steps.
      images: number of the run's training images to fit, spread over its pool; all if there are fewer.

    Returns:
      `aged` and `fresh`: for each complete epoch over these images the mean `loss` and `accuracy` (percent) during
      training.

    Raises:
      LabError: no such run, its stage has not ended, or the data are not available.
    """
    network, *aged = networks.load(directory, branch, seed, stage, epoch=epoch, hparams=hparams, model=model)
    study, pack, group, row = networks.find(paths.given(directory), branch, seed, stage, hparams or {})
    data = datasets.seen(dataset, study.image_size) if dataset else datasets.load(*study.data)
    pool, run = prepare.draw_up(pack, study, data)[group.name].pools[row], group.runs[row]
    count = min(images, len(pool.indices))
    shown = pool.indices[np.arange(count) * len(pool.indices) // count]
    labels = np.random.default_rng([seed, 0]).integers(0, data.classes, len(data.train_labels))
    optim = dataclasses.replace(run.stage.optim, schedule="constant", milestones=())
    plain = dataclasses.replace(
        run.stage, optim=optim, remedies=(), ema=0.0, augment="none", micro_batch=0, trained=("all",)
    )
    epoch_steps = -(-count // plain.batch_size)
    task = Task(
        key=batches.key(seed, "trainability"),
        source=schedule.plain_source(shown, labels)._replace(shuffle=np.bool_(True)),
        hyper=hyper.hyper(optim),
        steps=np.int32(steps),
        epoch_steps=np.int32(epoch_steps),
        until_accuracy=np.float32(0),
        ema=np.float32(0),
        watch=(),
        starts=np.zeros(0, np.int32),
    )
    every = Images(data.train_images, *prepare.scale(study, data), side=data.side)
    where = windows.only(every, shown)
    advance = jax.jit(functools.partial(step.advance, model=network, stage=plain))
    fresh = jax.jit(functools.partial(state.init_network, network, image_shape=data.shape))
    curves = {}
    for name, (params, stats) in {"aged": aged, "fresh": fresh(state.init_key(seed))}.items():
        now, last = state.create(params, stats, plain), []
        for end in range(epoch_steps, steps + 1, epoch_steps):
            now = advance(now, (task, np.int32(end)), where)
            last.append(np.asarray(now.last[:2], np.float64))
        curves[name] = {key: [float(each[i]) for each in last] for i, key in enumerate(("loss", "accuracy"))}
    return curves
