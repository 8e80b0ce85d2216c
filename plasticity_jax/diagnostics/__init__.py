"""Diagnostics: measurements of one network besides its accuracy.

A diagnostic is a pure function `(state, batch) -> {name: float32 scalar}` of one run, which can be jitted and mapped
over runs.  `state` has `.params` (a nested dictionary) and `.stats`; `batch` holds a fixed probe of 512 images in eval
mode.  There are two probes, of the run's training images and of its test images, both restricted to the stage's classes
and data set.  A diagnostic that uses images is recorded for both, as `train_NAME` and `test_NAME`; one of the weights
alone is recorded as `NAME`.  (`effective_rank` and `dormant_fraction` in older results use test images of all classes.)

    image     float32 [B, H, W, C], normalised
    label     int32 [B]
    logits    float32 [B, classes]
    features  {name: [B, .., D]}, the outputs of the ReLUs, and `penultimate` [B, D]
    initial   the parameters at initialisation

Custom diagnostics have the same form.  To add one here, write a function and put it into `DIAGNOSTICS`.

Expensive diagnostics, which take gradients, are called instruments.  They are functions of a `Subject` (see `subject`),
measured at steps and epochs given by the stage, on 2,048 of the run's training images.  To add one, put it into
`INSTRUMENTS` and its cost into `PASSES`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from plasticity_jax.diagnostics.curvature import curvature, spectrum
from plasticity_jax.diagnostics.dormancy import dormant_fraction
from plasticity_jax.diagnostics.fisher import fisher
from plasticity_jax.diagnostics.flatness import flatness
from plasticity_jax.diagnostics.geometry import correlation, path, similarity
from plasticity_jax.diagnostics.kernel import kernel
from plasticity_jax.diagnostics.noise import noise
from plasticity_jax.diagnostics.norms import distance_to_init, weight_norm
from plasticity_jax.diagnostics.rank import effective_rank
from plasticity_jax.diagnostics.subject import Remembering, Subject
from plasticity_jax.diagnostics.subspace import subspace

DIAGNOSTICS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Array]]] = {
    "weight_norm": weight_norm,
    "distance_to_init": distance_to_init,
    "effective_rank": effective_rank,
    "dormant_fraction": dormant_fraction,
}

INSTRUMENTS: dict[str, Callable[[Subject], dict[str, Array]] | Remembering] = {
    "noise": noise,
    "fisher": fisher,
    "curvature": curvature,
    "spectrum": spectrum,
    "subspace": subspace,
    "flatness": flatness,
    "correlation": correlation,
    "similarity": similarity,
    "path": path,
    "kernel": kernel,
}

# The cost of each instrument, in gradients per probe image; for images of 32x32 on CPU.
PASSES = {
    "noise": 5.0,
    "fisher": 2.5,
    "curvature": 192.0,
    "spectrum": 320.0,
    "subspace": 82.0,
    "flatness": 8.0,
    "correlation": 0.0,
    "similarity": 1.0,
    "path": 11.0,
    "kernel": 32.0,
}
