"""Turns signals that ask a study to stop into a flag, which is checked at safe points."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

_listening: list[Callable[[], bool]] = []  # the flag, inside `listening`


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Context in which SIGTERM, SIGINT, SIGUSR1 and SIGHUP set a flag; a second SIGINT stops at once.

    SIGHUP (a closed terminal) stays ignored if it was ignored before, as under `nohup`.  A nested `listening` shares
    the flag of the outer one.
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
