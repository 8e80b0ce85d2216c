"""A line of text that is rewritten in place on a terminal, and printed now and then where there is none."""

import contextlib
import os
import sys
from typing import TextIO

from plasticity_jax.parallel import multihost


class Line:
    """Writes to `stream`: stderr, or nowhere if another process speaks for this one.

    `every` is for whoever uses it: seconds between two lines.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 15.0):
        self.stream = stream or (sys.stderr if multihost.first() and sys.stderr else open(os.devnull, "w"))
        self.terminal = self.stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.width = 0

    def write(self, line: str) -> None:
        """Show a line that the next one replaces."""
        if self.terminal:
            self._show("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            self._show(line + "\n")

    def note(self, line: str) -> None:
        """Show a line that stays."""
        self._show(("\r".ljust(self.width + 1) + "\r" if self.terminal and self.width else "") + line + "\n")
        self.width = 0

    def _show(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a reader that went away, or a full disk, ends no training
            self.stream.write(text)
            self.stream.flush()
