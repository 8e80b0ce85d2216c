"""Checks of every file of the repository, as one test that names all files that fail."""

import ast
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file, parsed once per process."""
    return ast.parse(path.read_text(), str(path))


def holds_for_all(check: Callable[[T], None], things: Iterable[T], name: Callable[[T], str] = str) -> None:
    """Calls `check` with every item; fails with the names of items for which it fails, and the reasons.

    To be one test for each of hundreds of files takes longer than to look at them.
    """
    wrong, count = {}, 0
    for thing in things:
        count += 1
        try:
            check(thing)
        except (AssertionError, ValueError) as error:
            wrong[name(thing)] = f"{type(error).__name__}: {error}"
    assert count and not wrong, "\n".join(f"{which}: {why}" for which, why in wrong.items())
