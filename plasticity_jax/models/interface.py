"""What a network has to be, whether of `models` or a user's own: a module of flax.linen, and how it is called."""

import inspect
from typing import Any

import flax.linen as nn

from plasticity_jax.errors import ConfigError


def check(model: Any) -> nn.Module:
    """`model`, if the lab can train it.

    Raises:
      ConfigError: it is no linen module, or cannot be called with images and `train` alone.
    """
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"of the type {type(model).__name__}"
        raise ConfigError(
            f"model: is {kind}, and must be an instance of a flax.linen module; those of flax.nnx are none"
        )
    images, *rest = _parameters(model) or (None,)
    needed = [
        each.name for each in rest if each.default is each.empty and each.kind not in _ANY and each.name != "train"
    ]
    if images is None or needed:
        raise ConfigError(
            f"model: the __call__ of {type(model).__qualname__} must take images and, if it wants, `train`; "
            + (f"give its argument {needed[0]!r} a default" if needed else "it takes no images")
        )
    return model


def mode(model: nn.Module, train: bool) -> dict[str, Any]:
    """What the network is told of the mode: `train`, unless its `__call__` has no such argument."""
    takes = any(each.name == "train" or each.kind is each.VAR_KEYWORD for each in _parameters(model))
    return {"train": train} if takes else {}


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(model.__call__).parameters.values())
