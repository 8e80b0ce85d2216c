"""A lab for plasticity and warm starting of neural networks: `run` a config, `load` and `evaluate` what it trained."""

import importlib
from pathlib import Path
from typing import Any

__all__ = ["connectivity", "evaluate", "load", "run", "trainability"]
__version__ = "0.1.0"

FUNCTIONS = {  # and where they are
    "connectivity": "runner.between",
    "evaluate": "runner.kept",
    "load": "storage.networks",
    "run": "experiment",
    "trainability": "runner.probing",
}

# What a wheel has inside this package lies beside it in a checkout.
_CHECKOUT = Path(__file__).parents[1]
_FILES = ("pyproject.toml", "analysis/__init__.py", "configs/__init__.py", "launch/__init__.py")
if all((_CHECKOUT / name).is_file() for name in _FILES):
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> Any:
    """Import on first use: a command that only looks at its flags should not wait for jax."""
    if name in FUNCTIONS:
        return getattr(importlib.import_module(f"plasticity_jax.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
