"""The way to PyTorch: a child process that works while this one waits, and waits while this one works."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("peer.py")


class PeerError(Exception):
    """What PyTorch's side cannot do, in one line."""


class Channel:
    """Requests to `peer` and its answers, one line of JSON each.

    Raises, on any request:
      PeerError: the other side said so, broke off, or answered nonsense.
    """

    def __init__(self, process: subprocess.Popen):
        self.process = process

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
            raise PeerError(f"the process of PyTorch ended (status {self.process.wait()})")
        try:
            found = dict(json.loads(line))
        except (ValueError, TypeError):
            raise PeerError(f"the process of PyTorch answered {line.strip()!r}") from None
        if "error" in found:
            raise PeerError(found["error"])
        return found

    def train(self, mode: str, steps: int) -> float:
        """Seconds of so many steps, on the clock of the other side."""
        return float(self.ask(do="train", mode=mode, steps=steps)["seconds"])


@contextlib.contextmanager
def opened(python: str) -> Iterator[Channel]:
    """A channel to a new process of the interpreter `python`, ended with the block.

    Raises:
      PeerError: there is no such interpreter.
    """
    try:
        process = subprocess.Popen(
            [python, str(SCRIPT)],
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # `-P` to those who know it: what lies beside is not for torch
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
    except OSError as error:
        raise PeerError(f"{python}: {error.strerror}; give --torch_python an interpreter that has torch") from error
    try:
        yield Channel(process)
    finally:
        process.kill()
        with contextlib.suppress(OSError), process:  # what was meant for a process that is gone cannot be written
            pass
