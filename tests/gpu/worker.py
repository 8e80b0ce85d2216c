"""A process that works on the GPU: one line of JSON requests, one line answers (see `tests.benchmarks.peer`).

Each piece of work has a process of its own, so that flags of XLA can differ, and what hangs or crashes harms no other.
"""

import concurrent.futures
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.benchmarks import channel, peer
from tests.benchmarks.channel import Channel, PeerError

Entry = dict[str, Any]
COMMAND = (sys.executable, "-m", "tests.gpu.worker")
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}  # several processes use the card


class Crew:
    """Processes of a command, of which `size` work at a time; what they print goes to `log`.  `close` ends them."""

    def __init__(self, size: int, log: IO[str], command: Sequence[str] = COMMAND):
        self.size = size
        self.pool = concurrent.futures.ThreadPoolExecutor(size)
        self.log = log
        self.command = command
        self.processes: list[Any] = []

    def hire(self, flags: str = "", **environ: str) -> Channel:
        """A channel to a new worker; `flags` are of XLA."""
        given = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        return self.start(self.command, {**SHARED, "XLA_FLAGS": given, **environ})

    def torch(self, python: str) -> Channel:
        """A channel to PyTorch, which may be another interpreter's."""
        return self.start([python, str(channel.SCRIPT)], {"PYTHONSAFEPATH": "1"})

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> Channel:
        process = channel.started(command, environ, self.log)
        self.processes.append(process)
        return Channel(process, "the process")

    def at_once(self, asks: Mapping[str, Callable[[], Entry]]) -> Iterator[tuple[str, Entry]]:
        """(name, answer) of each request as it arrives; an `error` in place of a failure."""
        futures = {self.pool.submit(answer, ask): name for name, ask in asks.items()}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()

    def alone(self, seconds: float, flags: str = "", environ: Mapping[str, str] | None = None, **asked: Any) -> Entry:
        """The answer of a new worker within `seconds` seconds."""
        if seconds < 1:
            return {"error": "no time was left for it"}
        worker = self.hire(flags, **(environ or {}))
        try:
            with worker.within(seconds):
                return answer(functools.partial(worker.ask, **asked))
        finally:
            channel.end(worker.process)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.pool.shutdown(cancel_futures=True)
        for process in self.processes:
            channel.end(process)


@contextlib.contextmanager
def crew(size: int, log: Path) -> Iterator[Crew]:
    """Workers that end with the block."""
    with open(log, "a") as file:
        workers = Crew(size, file)
        try:
            yield workers
        finally:
            workers.close()


def answer(ask: Callable[[], Entry]) -> Entry:
    """The result of the call, or its exception as an `error`."""
    try:
        return ask()
    except (PeerError, OSError) as error:
        return {"error": str(error)}


def main() -> None:
    from tests.gpu import card, cells, checks, figure  # here, or each would import the others

    work = {fn.__name__: fn for module in (card, cells, checks, figure) for fn in module.WORK}
    peer.serve(lambda asked: work[asked.pop("do")](**asked))


if __name__ == "__main__":
    main()
