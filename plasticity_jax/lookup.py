"""Finds functions by name: keys of a dict, or custom ones as `module:function`."""

import importlib
import re
from collections.abc import Mapping
from typing import TypeVar

from plasticity_jax.errors import ConfigError

Function = TypeVar("Function")
OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def lookup(functions: Mapping[str, Function], name: str, where: str) -> Function:
    """The function called `name`: from the dict, or imported if it is `module:function`; errors begin with `where`.

    Raises:
      ConfigError: there is no such function.
    """
    if name in functions:
        return functions[name]
    if not OWN.fullmatch(name):
        raise ConfigError(
            f"{where}={name!r}: choose one of {', '.join(functions)}, or give module:function of your own"
        )
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        raise ConfigError(f"{where}={name!r}: there is no module {error.name}; is it in this directory?") from error
    except AttributeError as error:
        raise ConfigError(f"{where}={name!r}: the module {module} has no {function}") from error
