"""Evaluation of ONE run: exact sums over images, and diagnostics.  `parallel` adds runs and devices."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from plasticity_jax import sharding
from plasticity_jax.data import patches, tasks
from plasticity_jax.data.batches import Source
from plasticity_jax.training.gradient import among, forward
from plasticity_jax.training.inputs import Images, Probe
from plasticity_jax.training.state import TrainState

Batch = Mapping[str, Any]
Metrics = dict[str, Array]
Diagnostic = Callable[[TrainState, Batch], Metrics]
SUMS = ("loss", "correct", "count")


def evaluate(
    state: TrainState, source: Source, span: tuple[Array, Array], images: Images, *, model: nn.Module, batch: int
) -> Metrics:
    """The sums of `evaluate_batch` for each batch of `source`, float32 [batches]; 0 outside `span` (first, last + 1).

    The span is traced.  The caller adds up the sums in float64.
    """

    def body(number: Array, sums: Metrics) -> Metrics:
        found = evaluate_batch(state, source, number * batch, images, model=model, batch=batch)
        return {name: sums[name].at[number].set(found[name]) for name in SUMS}

    count = -(-source.indices.shape[0] // batch)
    return jax.lax.fori_loop(*span, body, {name: jnp.zeros(count, jnp.float32) for name in SUMS})


def evaluate_batch(
    state: TrainState, source: Source, first: Array, images: Images, *, model: nn.Module, batch: int
) -> Metrics:
    """Sums of `loss`, `correct` and `count` over slots first .. first + batch of `source`, masked beyond its size."""
    slots = sharding.split(first + jnp.arange(batch))
    mask = slots < source.size
    slots = jnp.minimum(slots, source.size - 1)
    stream, indices = source.tasks, source.indices[slots]
    stored = images.take(indices), source.labels[slots], indices
    image, labels = tasks.seen(stream, tasks.learned(stream, state.step) if stream else 0, *stored)
    if source.patches:
        image = patches.paste(source.patches, patches.evaluation_key(source.patches), slots, slots, image, labels)
    logits = among(forward(model, state.params, state.stats, image, train=False)[0], source.classes)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        "loss": jnp.sum(jnp.where(mask, losses, 0.0)),
        "correct": jnp.sum(mask & (jnp.argmax(logits, -1) == labels)).astype(jnp.float32),
        "count": jnp.sum(mask).astype(jnp.float32),
    }


def diagnose(
    state: TrainState,
    row: tuple[Any, Mapping[str, Probe]],
    train_images: Images,
    test_images: Images,
    *,
    model: nn.Module,
    diagnostics: Mapping[str, Diagnostic],
) -> Metrics:
    """Every diagnostic of one run on each of its probes, in eval mode, without augmentation.

    Diagnostics that use images are called `train_NAME` and `test_NAME` after the probe, those of weights alone `NAME`.

    `row` holds the initial weights of the run's seed, and its probes `train` and `test`.
    """
    (initial, probes), metrics = row, Metrics()
    for split, images in (("train", train_images), ("test", test_images)):
        probe = probes[split]
        index, stream = sharding.split(probe.index), probe.tasks
        stored = images.take(index), probe.label, probe.index
        image, label = tasks.seen(stream, tasks.learned(stream, state.step) if stream else 0, *stored)
        logits, features, _ = forward(model, state.params, state.stats, image, train=False)
        logits = among(logits, probe.classes)
        values = {"image": image, "label": label, "logits": logits, "features": features, "initial": initial}
        for diagnostic in diagnostics.values():
            batch = Watched(values)
            measured = diagnostic(state, batch)
            named = f"{split}_" if batch.looked_at - {"initial"} else ""
            metrics |= {named + name: value for name, value in measured.items()}
    return metrics


class Watched(Mapping[str, Any]):
    """A batch that records which of its entries were read, in `looked_at`."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_of, self.looked_at = values, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.looked_at.add(key)
        return self.values_of[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)
