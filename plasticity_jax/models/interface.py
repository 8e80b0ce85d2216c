"""Checks that a network, from `models` or custom, can be trained: a flax.linen module called with images."""

import inspect
from typing import Any

import flax.linen as nn

from plasticity_jax.errors import ConfigError


def check(model: Any) -> nn.Module:
    """Returns `model` if it can be trained.

    Raises:
      ConfigError: it is not a linen module, or cannot be called with only images and `train`.
    """
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"of the type {type(model).__name__}"
        raise ConfigError(
            f"model: is {kind}, and must be an instance of a flax.linen module (flax.nnx is not supported)"
        )
    images, *rest = _parameters(model) or (None,)
    needed = [arg.name for arg in rest if arg.default is arg.empty and arg.kind not in _ANY and arg.name != "train"]
    if images is None or needed:
        raise ConfigError(
            f"model: the __call__ of {type(model).__qualname__} must take images and, optionally, `train`; "
            + (f"give its argument {needed[0]!r} a default" if needed else "it takes no images")
        )
    return model


def mode(model: nn.Module, train: bool) -> dict[str, Any]:
    """Keyword arguments that set the mode: `train`, unless the network's `__call__` has no such argument."""
    takes = any(arg.name == "train" or arg.kind is arg.VAR_KEYWORD for arg in _parameters(model))
    return {"train": train} if takes else {}


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(model.__call__).parameters.values())
