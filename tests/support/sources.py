"""What has to hold for every file of the repository, in one test that names all for which it does not."""

import ast
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file of Python, parsed once for all tests of this process."""
    return ast.parse(path.read_text(), str(path))


def holds_for_all(check: Callable[[T], None], things: Iterable[T], name: Callable[[T], str] = str) -> None:
    """Call `check` with each; fail with the name of each thing for which it fails, and why.

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
