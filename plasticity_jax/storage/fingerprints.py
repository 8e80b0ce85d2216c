"""Fingerprints of custom code, so that a study is not continued with changed code unnoticed.

A fingerprint covers the source, its values (fields of a network, closures, defaults), and the code that it uses from
its own package.  Other packages count by name, since their versions are recorded elsewhere.  So does code without a
source, such as code typed at a prompt.
"""

import dataclasses
import functools
import hashlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None))
SELF = ("parent", "name")  # fields of every linen module that say where it is used


def fingerprint(thing: Any) -> str:
    """16 hexadecimal digits of a network, a reset or a diagnostic."""
    text = "\n".join(_told(thing, _package(thing), set()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _told(thing: Any, package: str, told: set[int]) -> Iterator[str]:
    """All code and values that determine `thing`, each function and class once."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if isinstance(thing, PLAIN):
        yield repr(thing)
    elif isinstance(thing, dict):
        for key, value in sorted(thing.items(), key=lambda item: repr(item[0])):
            yield repr(key)
            yield from _told(value, package, told)
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from _told(item, package, told)
    elif isinstance(thing, (set, frozenset)):
        yield from sorted(map(repr, thing))
    elif hasattr(thing, "dtype") and hasattr(thing, "shape"):
        array = np.asarray(thing)
        yield f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    elif isinstance(thing, functools.partial):
        yield from _told((thing.func, thing.args, thing.keywords), package, told)
    elif inspect.ismethod(thing):
        yield from _told((thing.__func__, thing.__self__), package, told)
    elif id(thing) not in told:
        told.add(id(thing))
        yield _source(thing) if _package(thing) == package else _name(thing)
        if _package(thing) == package:
            yield from _told(_inside(thing), package, told)


def _inside(thing: Any) -> Any:
    """The code and the values of a function, class or object."""
    if isinstance(thing, types.FunctionType):
        cells = inspect.getclosurevars(thing).nonlocals
        names = sorted({name for code in _codes(thing.__code__) for name in code.co_names})
        used = {name: thing.__globals__[name] for name in names if _counts(thing.__globals__.get(name), thing)}
        return [thing.__defaults__, thing.__kwdefaults__, cells, used]
    if inspect.isclass(thing):
        functions = {name: value for name, value in vars(thing).items() if inspect.isfunction(inspect.unwrap(value))}
        changed = {name: value for name, value in functions.items() if _source(inspect.unwrap(value)) != _name(value)}
        return [*(base for base in thing.__bases__ if base is not object), changed]
    if dataclasses.is_dataclass(thing):  # every linen module is one
        fields = {field.name: getattr(thing, field.name, None) for field in dataclasses.fields(thing)}
        return [type(thing), {name: value for name, value in fields.items() if name not in SELF}]
    return [type(thing), getattr(thing, "__dict__", {})]


def _counts(value: Any, user: types.FunctionType) -> bool:
    """Whether a global is part of a function's fingerprint: code of the same package, and plain constants."""
    if callable(value):
        return _package(value) == _package(user)
    return isinstance(value, PLAIN) and value is not None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of functions defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _source(thing: Any) -> str:
    """The source of a function or class, or of an object's type; the name if the source is not available."""
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        return _name(thing)


def _name(thing: Any) -> str:
    """`module.Class.function`; for objects their repr without the address."""
    name = getattr(thing, "__qualname__", None)
    return f"{thing.__module__}.{name}" if name else re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _package(thing: Any) -> str:
    """The top-level package of an object or its type."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    module = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__module__", None)
    return str(module or type(thing).__module__).partition(".")[0]
