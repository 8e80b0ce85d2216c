"""What commands print, to readers that may go away: `| head`, a terminal that is closed."""

import errno
import io
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)  # the latter is what a closed terminal answers


class _Patient(io.FileIO):
    """Forgets what nobody reads any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From now on a reader of standard output or error that goes away ends nothing, and changes no exit status."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):  # closed, or not the system's
            continue
        stream.flush()
        raw = _Patient(stream.fileno(), "w", closefd=False)
        lines = stream.line_buffering or stream.write_through or name == "stderr"
        text = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=lines)
        setattr(sys, name, text)
