"""The networks by name.  To add one, write a function and put it into `MODELS`.

Every model is called as `model.apply(variables, images, train)` with normalised float32 images [B, H, W, C].  It
returns the logits, float32 [B, classes], and a dictionary of features: the output of every ReLU by name, and
`penultimate`, float32 [B, D], the input of the head.  See `layers` for the initial values.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from plasticity_jax.config.spec import Model
from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import lookup
from plasticity_jax.models import mlp, resnet
from plasticity_jax.models.injection import Injected
from plasticity_jax.models.layers import ACTIVATIONS, NORMS
from plasticity_jax.models.precision import DTYPES, compute_dtype
from plasticity_jax.models.resnet import STEMS

__all__ = ["ACTIVATIONS", "DTYPES", "MODELS", "NORMS", "STEMS", "build", "compute_dtype", "module_names"]

RESNETS = ("resnet", *resnet.SIZES)
MODELS: dict[str, Callable[[Model, int], nn.Module]] = {
    **dict.fromkeys(RESNETS, resnet.resnet),
    "wide_resnet": resnet.wide_resnet,
    "mlp": mlp.mlp,
    "logistic": mlp.logistic,
}


def build(model: Model, classes: int) -> nn.Module:
    """The network with `classes` outputs.

    Raises:
      ConfigError: an unknown name, stem, norm or dtype, a depth or width below 1, or `zero_scale` where unsupported.
    """
    for field, choices in (("dtype", DTYPES), ("stem", STEMS), ("norm", NORMS), ("activation", ACTIVATIONS)):
        _check(field, getattr(model, field), tuple(choices))
    for field in ("depth", "width"):
        if getattr(model, field) < 1:
            raise ConfigError(f"model.{field}={getattr(model, field)}: must be 1 or more")
    if model.zero_scale and model.name in {*MODELS} - {*RESNETS}:
        raise ConfigError(f"model.zero_scale=True: that is for {', '.join(RESNETS)}, and not for {model.name}")
    network = lookup(MODELS, model.name, "model.name")(model, classes)
    return Injected(network, model.injected) if model.injected else network


def _check(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"model.{field}={value!r}: there is no such {field}; choose one of {list(choices)}")


def module_names(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The top-level modules in the order in which the network applies them.

    That is `stem`, `moduleK` or `layerK` by number, `head`.  Other names, of custom networks, come between the numbered
    ones and the head, in the order of the mapping.
    """

    def place(name: str) -> tuple[int, int]:
        number = re.fullmatch(r"(?:module|layer)(\d+)", name)
        if number:
            return 1, int(number[1])
        return {"stem": 0, "head": 3}.get(name, 2), 0

    return tuple(sorted(params, key=place))
