"""Signals that ask a study to stop, as a flag that it looks at when it is ready."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT, SIGUSR1 and SIGHUP into a flag while inside; a second SIGINT stops at once.

    SIGHUP, of a terminal that is closed, stays ignored where it is, as below `nohup`.
    """
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        if caught.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread, as in a notebook server
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
