"""Parses a config with the names that it may use: the keys of all dicts of functions, and custom ones."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.config import parse as parser
from plasticity_jax.config import spec
from plasticity_jax.config.rules import Names


def parse(config: ConfigDict | Mapping[str, Any], custom: Collection[str] = ()) -> spec.Study:
    """Returns the study that a config describes.

    Args:
      config: as made by `configs/base.py`; every key must be present, and no other.
      custom: names of custom diagnostics, instruments, remedies, resets and models given from Python.

    Raises:
      ConfigError: an unknown or missing key, a wrong type or value, or an inconsistent plan.
    """
    return parser.parse(config, known(custom))


def known(custom: Collection[str] = ()) -> Names:
    """The names that a config may use, by their kind as in `spec`; imports jax."""
    from plasticity_jax import models
    from plasticity_jax.diagnostics import DIAGNOSTICS, INSTRUMENTS
    from plasticity_jax.parallel.run_axis import STRATEGIES
    from plasticity_jax.training.optimizers import OPTIMISERS
    from plasticity_jax.training.remedies import apply
    from plasticity_jax.training.resets import RESETS
    from plasticity_jax.training.schedules import DETECTORS, SCHEDULES

    return {
        "models": (*models.MODELS, *custom),
        "stems": models.STEMS,
        "norms": models.NORMS,
        "activations": models.ACTIVATIONS,
        "dtypes": models.DTYPES,
        "optimizers": tuple(OPTIMISERS),
        "schedules": tuple(SCHEDULES),
        "detectors": tuple(DETECTORS),
        "resets": (*RESETS, *custom),
        "remedies": {**dict.fromkeys(custom), **apply.signatures()},
        "diagnostics": (*DIAGNOSTICS, *custom),
        "instruments": (*INSTRUMENTS, *custom),
        "strategies": ("auto", *STRATEGIES),
    }
