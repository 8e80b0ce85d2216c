"""Standard output that ignores closed readers, such as `| head` or a closed terminal."""

import errno
import io
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)  # EIO is the error of a closed terminal


class _Patient(io.FileIO):
    """A file that discards data once its reader is gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Makes the process ignore closed readers of standard output and error, also in its exit status."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):  # closed, or not the system's
            continue
        stream.flush()
        raw = _Patient(stream.fileno(), "w", closefd=False)
        lines = stream.line_buffering or stream.write_through or name == "stderr"
        text = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=lines)
        setattr(sys, name, text)
