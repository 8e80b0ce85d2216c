"""Remedies after every step: functions of (network, what is known now, numbers), by name in `UPDATES`."""

from collections.abc import Callable

from plasticity_jax.training.remedies.interface import Network, Remedy

UPDATES: dict[str, Callable[..., Network] | Remedy] = {}
