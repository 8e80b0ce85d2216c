"""Minimal stages, images and networks; a test changes only what it tests."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import models
from plasticity_jax.config import optim, spec
from plasticity_jax.config.plan import Group, Run, unfold
from plasticity_jax.data import batches, datasets
from plasticity_jax.models import resnet
from plasticity_jax.runner import schedule
from plasticity_jax.training import hyper, state, step
from plasticity_jax.training.remedies import apply

PATCH = spec.Patch(0.0, 3, 1.25, 0.1, 1, 0.2, 1.75)
DATA = spec.Data(0, (), "random", 1.0, 1, 1, 1.0, 0.5, False, True, 0.0, PATCH, spec.Tasks("none", 1), "none")
DETECTOR = optim.Detector("window", 2, 0.01, 1e-3, 0.0, 2, 0, 0.5, 16, 0.05, True)
OPTIM = optim.Optim(
    "sgd", 0.1, 0.0, False, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0, "constant", 0.0, (), 0.1, DETECTOR, "all", 0
)
RESET = spec.Reset((), 0.0, 1.0, "modules", "all", "")
STAGE = spec.Stage(
    "train",
    "train",
    spec.INIT,
    DATA,
    2.0,
    0,
    0.0,
    16,
    0,
    "none",
    ("all",),
    0.0,
    OPTIM,
    RESET,
    1,
    0,
    (),
    0,
    (),
    0.0,
    0.0,
)
MODEL = spec.Model("mlp", 1, 8, "cifar", "none", "float32", "relu", 0.0, (), False)
MLP = models.build(MODEL, 4)
RESNET = models.build(spec.Model("resnet", 1, 2, "cifar", "batch", "float32", "relu", 0.0, (), False), 4)

changed = dataclasses.replace


class Convolved(nn.Module):
    """The smallest network with the convolution and the normalisation of the residual ones."""

    norm: str = "batch"

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(4, name="head")(
            resnet.Stem(2, "cifar", self.norm, jnp.float32, name="stem")(images, train)[:, 3, 4]
        )


CONVOLVED = Convolved()


def stage(**fields) -> spec.Stage:
    """A stage; fields of its data, optimiser and reset can be given too, if the stage has none of that name."""
    parts = {}
    for name, part in (("data", DATA), ("optim", OPTIM), ("reset", RESET)):
        inside = {key: fields.pop(key) for key in list(fields) if hasattr(part, key) and not hasattr(STAGE, key)}
        parts[name] = changed(fields.pop(name, part), **inside)
    return changed(STAGE, **parts, **fields)


def study(**fields) -> spec.Study:
    values = dict(
        name="",
        dataset="own",
        data_dir="",
        holdout=0.0,
        holdout_seed=0,
        test_split="test",
        resize=0,
        image_size=0,
        images="device",
        train_images=0,
        validation_images=0,
        test_images=0,
        seeds=(0,),
        packs=(),
    )
    values |= dict(
        control="train",
        window=0.25,
        diagnostics=(),
        instruments=(),
        measure_images=64,
        train_eval_images=0,
        mean=(),
        std=(),
        eval_batch=32,
        matmul_precision="default",
    )
    return spec.Study(**values | dict(strategy="map", checkpoint_seconds=600.0) | fields)


def groups(*plan: spec.Stage, seeds=(0,)) -> tuple[Group, ...]:
    """The groups of a plan, parents first."""
    return unfold(spec.Pack("main", MODEL, (((), plan),)), seeds)


def dataset(n: int = 100, side: int = 8, classes: int = 4) -> datasets.Dataset:
    """Noise with one brighter quarter that shows the class; half as many test images."""
    rng = np.random.default_rng(7)

    def half(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % classes
        images = rng.integers(0, 160, (n, side, side, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image.reshape(classes, -1)[label] += 95
        return images, labels

    return datasets.from_arrays("tiny", *half(n), *half(n // 2))


DATASET = dataset()
SHAPE = DATASET.train_images.shape[1:]
IMAGES = step.Images(
    *(jnp.asarray(a) for a in (DATASET.train_images, np.float32(DATASET.mean), np.float32(DATASET.std)))
)


def task(stage: spec.Stage, seed: int = 0, n: int = 100, steps: int = 10) -> step.Task:
    """The row of one run on the first `n` images of the data set."""
    run = Run("train/seed0", seed, stage.branch, (), stage, None, True, 0)
    pool = schedule.subsets.pool(stage.data, seed, DATASET.train_labels[:n], DATASET.classes)
    classes, patched = schedule.told_apart(run, DATASET), schedule.patched(run, DATASET, "train", pool.indices)
    return step.Task(
        key=batches.key(seed, "stage", stage.name),
        source=schedule.source(pool, stage.data, len(DATASET.train_labels), classes, patched),
        hyper=hyper.of_stage(stage),
        steps=np.int32(steps),
        epoch_steps=np.int32(-(-n // stage.batch_size)),
        until_accuracy=np.float32(stage.until_accuracy),
        ema=np.float32(stage.ema),
        watch=hyper.watch(stage.optim.detector) if stage.optim.schedule == "autodecay" else (),
        starts=schedule.starts(stage.optim.milestones, steps),
        remedies=apply.rows(stage),
        smoothing=np.float32(stage.label_smoothing) if stage.label_smoothing else (),
        noise=np.float32(stage.activation_noise) if stage.activation_noise else (),
    )


@functools.cache
def first_state(model, stage: spec.Stage = STAGE, seed: int = 0) -> state.TrainState:
    """The initial state of a fresh run of a seed, for images of the data set."""
    return state.create(*_network(model, state.init_key(seed)), stage)


@functools.partial(jax.jit, static_argnums=0)
def _network(model, key):
    return state.init_network(model, key, SHAPE)


def same(a, b) -> bool:
    """Whether two trees are equal bit for bit, including NaN."""
    leaves, others = ([np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))] for tree in (a, b))
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()) for x, y in zip(leaves, others, strict=True)
    )
