"""A lab for plasticity and warm starting of neural networks: `run` a config, `load` and `evaluate` its networks."""

import importlib
from pathlib import Path
from typing import Any

__all__ = ["connectivity", "evaluate", "load", "run", "trainability"]
__version__ = "0.1.0"

FUNCTIONS = {  # by the module that defines them
    "connectivity": "runner.between",
    "evaluate": "runner.kept",
    "load": "storage.networks",
    "run": "experiment",
    "trainability": "runner.probing",
}

# A wheel has analysis, configs and launch inside this package; a checkout has them beside it.
_CHECKOUT = Path(__file__).parents[1]
_FILES = ("pyproject.toml", "analysis/__init__.py", "configs/__init__.py", "launch/__init__.py")
if all((_CHECKOUT / name).is_file() for name in _FILES):
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> Any:
    """Imports on first use, so that commands check their flags before jax is loaded."""
    if name in FUNCTIONS:
        return getattr(importlib.import_module(f"plasticity_jax.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
