"""Remedies at the start of a stage: functions of (network, what is known, numbers), by name in `STARTS`."""

from collections.abc import Callable

from plasticity_jax.training.remedies.interface import Network, Remedy

STARTS: dict[str, Callable[..., Network] | Remedy] = {}
