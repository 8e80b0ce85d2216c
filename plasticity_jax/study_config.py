"""Configs parsed with all names that they may use: the keys of the dicts of functions, and what a user brings."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.config import parse as parser
from plasticity_jax.config import spec
from plasticity_jax.config.rules import Names


def parse(config: ConfigDict | Mapping[str, Any], own: Collection[str] = ()) -> spec.Study:
    """The study that a config asks for.

    Args:
      config: as `configs/base.py` makes it; every key must be there, and no other.
      own: names that are given from Python: own diagnostics, resets and models.

    Raises:
      ConfigError: an unknown or missing key, a wrong type or value, or a plan that cannot be walked.
    """
    return parser.parse(config, known(own))


def known(own: Collection[str] = ()) -> Names:
    """The names that a config may use, by the word that `spec` has for their kind; imports jax."""
    from plasticity_jax import models
    from plasticity_jax.diagnostics import DIAGNOSTICS, INSTRUMENTS
    from plasticity_jax.parallel.run_axis import STRATEGIES
    from plasticity_jax.training.optimizers import OPTIMISERS
    from plasticity_jax.training.remedies import apply
    from plasticity_jax.training.resets import RESETS
    from plasticity_jax.training.schedules import DETECTORS, SCHEDULES

    return {
        "models": (*models.MODELS, *own),
        "stems": models.STEMS,
        "norms": models.NORMS,
        "activations": models.ACTIVATIONS,
        "dtypes": models.DTYPES,
        "optimizers": tuple(OPTIMISERS),
        "schedules": tuple(SCHEDULES),
        "detectors": tuple(DETECTORS),
        "resets": (*RESETS, *own),
        "remedies": {**dict.fromkeys(own), **apply.signatures()},
        "diagnostics": (*DIAGNOSTICS, *own),
        "instruments": (*INSTRUMENTS, *own),
        "strategies": ("auto", *STRATEGIES),
    }
