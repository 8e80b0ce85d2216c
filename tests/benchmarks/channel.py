"""A channel to PyTorch: a child process that works while this one waits, and waits while this one works."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SCRIPT = Path(__file__).with_name("peer.py")


class PeerError(Exception):
    """What failed on PyTorch's side, in one line."""


class Channel:
    """Requests to `peer` and its answers, one line of JSON each.

    Raises, on any request:
      PeerError: the other side said so, broke off, or answered nonsense.
    """

    def __init__(self, process: subprocess.Popen, name: str = "the process of PyTorch"):
        self.process = process
        self.name = name
        self.late = ""

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Inside, the other side may take so long before it is killed."""

        def kill() -> None:
            self.late = f"no answer within {seconds:.0f} s"
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request, allow_nan=False) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise PeerError(self.late or f"{self.name} ended (status {self.process.wait()})")
        try:
            answer = dict(json.loads(line))
        except (ValueError, TypeError):
            raise PeerError(f"{self.name} answered {line.strip()!r}") from None
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def train(self, mode: str, steps: int) -> float:
        """Seconds of `steps` steps, by the clock of the other process."""
        return float(self.ask(do="train", mode=mode, steps=steps)["seconds"])


@contextlib.contextmanager
def opened(python: str) -> Iterator[Channel]:
    """A channel to a new process of the interpreter `python`, ended with the block.

    Raises:
      PeerError: there is no such interpreter.
    """
    try:
        # `-P` where Python has it: torch must not import the modules beside the script
        process = started([python, str(SCRIPT)], {"PYTHONSAFEPATH": "1"})
    except OSError as error:
        raise PeerError(f"{python}: {error.strerror}; give --torch_python an interpreter that has torch") from error
    try:
        yield Channel(process)
    finally:
        end(process)


def started(command: Sequence[str], environ: Mapping[str, str], log: IO[str] | None = None) -> subprocess.Popen:
    """A process that reads and writes lines, with added environment variables; its stderr goes to `log`."""
    return subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        bufsize=1,
    )


def end(process: subprocess.Popen) -> None:
    """Kill a process, wait for it, and close its pipes."""
    process.kill()
    with contextlib.suppress(OSError), process:  # nothing can be flushed to a process that has ended
        pass
