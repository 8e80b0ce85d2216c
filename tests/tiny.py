"""The smallest stages, images and networks that show a thing; a test changes only what it is about."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import datasets, models, optim, sampling, stages, state, timetable, train
from plasticity_jax.legs import Leg, unfold

DATA = stages.Data("random", 1.0, 1, 1, 1.0, 0.5, False, 0.0)
OPTIM = stages.Optim("sgd", 0.1, 0.0, False, 0.9, 0.999, 1e-8, 0.0, 0.0, "constant", 0.0, (), 0.1)
RESET = stages.Reset((), 0.0, 1.0, "modules", "all", "")
STAGE = stages.Stage("train", "train", stages.INIT, DATA, 2.0, 0, 0.0, 16, False, OPTIM, RESET, 1, 0)
MODEL = stages.Model("mlp", 1, 8, "cifar", "none", "float32")
MLP = models.build(MODEL, 4)
RESNET = models.build(stages.Model("resnet", 1, 2, "cifar", "batch", "float32"), 4)

changed = dataclasses.replace


class Convolved(nn.Module):
    """The smallest network with the convolution and the normalisation of the residual ones."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(4, name="head")(
            models.Stem(2, "cifar", "batch", jnp.float32, name="stem")(images, train)[:, 3, 4]
        )


CONVOLVED = Convolved()


def stage(**fields) -> stages.Stage:
    """A stage; fields of its data, optimiser and reset can be given alike, if it has none of that name."""
    parts = {}
    for name, part in (("data", DATA), ("optim", OPTIM), ("reset", RESET)):
        inside = {key: fields.pop(key) for key in list(fields) if hasattr(part, key) and not hasattr(STAGE, key)}
        parts[name] = changed(fields.pop(name, part), **inside)
    return changed(STAGE, **parts, **fields)


def study(**fields) -> stages.Study:
    values = dict(
        name="", dataset="own", data_dir="", train_images=0, validation_images=0, test_images=0, seeds=(0,), packs=()
    )
    values |= dict(control="train", window=0.25, diagnostics=(), evaluate_train=False, eval_batch=32, strategy="map")
    return stages.Study(**values | dict(checkpoint_seconds=600.0) | fields)


def legs(*plan: stages.Stage, seeds=(0,)) -> tuple[Leg, ...]:
    """The legs of a plan, parents first."""
    return unfold(stages.Pack("main", MODEL, (((), plan),)), seeds)


def dataset(n: int = 100, side: int = 8, classes: int = 4) -> datasets.Dataset:
    """Noise with one brighter quarter that tells the class; half as many test images."""
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
IMAGES = train.Images(
    *(jnp.asarray(a) for a in (DATASET.train_images, np.float32(DATASET.mean), np.float32(DATASET.std)))
)


def task(stage: stages.Stage, seed: int = 0, n: int = 100, steps: int = 10) -> train.Task:
    """The row of one run on the first `n` images of the data set."""
    pool = timetable.pools.pool(stage.data, seed, DATASET.train_labels[:n], DATASET.classes)
    return train.Task(
        key=sampling.key(seed, "stage", stage.name),
        source=timetable.source(pool, stage.data, len(DATASET.train_labels)),
        hyper=optim.hyper(stage.optim),
        steps=np.int32(steps),
        epoch_steps=np.int32(-(-n // stage.batch_size)),
        until_accuracy=np.float32(stage.until_accuracy),
    )


@functools.cache
def first_state(model, spec: stages.Optim = OPTIM, seed: int = 0) -> state.TrainState:
    """The state that a fresh run of a seed starts from, on images of the data set."""
    return state.create(*_network(model, state.init_key(seed)), spec)


@functools.partial(jax.jit, static_argnums=0)
def _network(model, key):
    return state.init_network(model, key, SHAPE)


def same(a, b) -> bool:
    """Whether two trees agree bit by bit, NaN included."""
    leaves, others = ([np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))] for tree in (a, b))
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()) for x, y in zip(leaves, others, strict=True)
    )
