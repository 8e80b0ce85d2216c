"""Real processes that can be stopped, killed and waited for; forked from a server that has jax imported."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HUNG = 240.0  # seconds after which a process that has not ended counts as hung
POLL = 0.003
ONE = threading.Lock()  # starting a process also polls all others, which two threads must not do at once


class Lost(Exception):
    """Something was lost, which no fault may cause."""


def server(module: str) -> ForkServerContext:
    """The context in which processes are forked; each finds `module` imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended: its exit status (minus the signal that killed it) and its whole output."""

    code: int
    text: str

    @property
    def last(self) -> str:
        """The last line that it printed."""
        return (self.text.strip().splitlines() or [""])[-1]


class Child:
    """A process that runs `target(*args)` and prints into `log`."""

    def __init__(self, context: ForkServerContext, target: Callable[..., None], args: Sequence[Any], log: Path) -> None:
        self.log = log
        self.process: BaseProcess = context.Process(target=target, args=tuple(args), daemon=True)
        with ONE:
            self.process.start()
        self.pid: int = self.process.pid or 0

    def stands(self, after: float = 0.0) -> bool:
        """Wait until it has stopped itself, or stop it after `after` seconds; False if it ended before."""
        began = time.monotonic()
        while self.alive() and time.monotonic() - began < HUNG:
            if _state(self.pid) == "T":
                return True
            if after and time.monotonic() - began > after:
                self.signal(signal.SIGSTOP)
            time.sleep(POLL)
        return False

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        with ONE:
            return self.process.is_alive()

    def signal(self, number: int) -> None:
        """Send a signal, if the process still exists."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def go_on(self) -> None:
        """Continue after a stop."""
        self.signal(signal.SIGCONT)

    def kill(self) -> End:
        """Kill it at once."""
        self.signal(signal.SIGKILL)
        return self.end()

    def end(self) -> End:
        """Wait until it ends.

        Raises:
          Lost: it hangs.
        """
        began, hung = time.monotonic(), False
        while self.alive():
            if time.monotonic() - began > HUNG and not hung:
                hung = True
                self.signal(signal.SIGKILL)
            time.sleep(POLL)
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        if hung:
            raise Lost(f"hung; the last it said: {text.strip()[-300:]}")
        return End(self.process.exitcode or 0, text)


def _state(pid: int) -> str:
    """The state of a process as `ps` shows it; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
