"""A status line, rewritten in place on a terminal, printed repeatedly elsewhere."""

import contextlib
import os
import sys
from typing import TextIO

from plasticity_jax.parallel import multihost


class Line:
    """Writes to `stream`: stderr by default, nothing in processes other than the first.

    `every`: seconds between two lines, to be respected by the caller.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 15.0):
        self.stream = stream or (sys.stderr if multihost.first() and sys.stderr else open(os.devnull, "w"))
        self.terminal = self.stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.width = 0

    def write(self, line: str) -> None:
        """Shows a line that the next one replaces."""
        if self.terminal:
            self._show("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            self._show(line + "\n")

    def note(self, line: str) -> None:
        """Shows a line permanently."""
        self._show(("\r".ljust(self.width + 1) + "\r" if self.terminal and self.width else "") + line + "\n")
        self.width = 0

    def _show(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal or a full disk must not stop training
            self.stream.write(text)
            self.stream.flush()
