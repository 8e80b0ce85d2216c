"""A lab for plasticity and warm starting of neural networks: `run` a config, `load` what it trained."""

from pathlib import Path
from typing import Any

__all__ = ["load", "run"]
__version__ = "0.1.0"

# What a wheel has inside this package lies beside it in a checkout.
_CHECKOUT = Path(__file__).parents[1]
_FILES = ("pyproject.toml", "analysis/__init__.py", "configs/__init__.py", "launch/__init__.py")
if all((_CHECKOUT / name).is_file() for name in _FILES):
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> Any:
    """Import on first use: a command that only looks at its flags should not wait for jax."""
    if name == "run":
        from plasticity_jax.experiment import run

        return run
    if name == "load":
        from plasticity_jax.storage.networks import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
