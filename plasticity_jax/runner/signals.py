"""Turns signals that ask a study to stop into a flag, which is checked at safe points."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

_listening: list[Callable[[], bool]] = []  # the flag, while somebody listens


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT, SIGUSR1 and SIGHUP into a flag while inside; a second SIGINT stops at once.

    SIGHUP, of a terminal that is closed, stays ignored where it is, as below `nohup`.  Inside another
    `listening` it is the same flag: what came before is not forgotten.
    """
    if _listening:
        yield _listening[-1]
        return
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
    _listening.append(lambda: bool(caught))
    try:
        yield _listening[-1]
    finally:
        _listening.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
