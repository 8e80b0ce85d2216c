"""Signals that ask a study to stop, as a flag that it looks at when it is ready."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while inside; a second SIGINT stops at once."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        if caught.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread, as in a notebook server
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
