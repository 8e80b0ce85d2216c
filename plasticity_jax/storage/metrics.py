"""The long table of measurements: one JSON line per run, step and metric.

A row is `{"run", "seed", "branch", "hparams", "stage", "epoch", "step", "metric", "value"}`.  A value that is not
finite is null.

A checkpoint stores a `Mark` of the table.  Resuming from that checkpoint opens the table with the mark, which removes
all later rows.  They are measured again, so a kill neither loses nor duplicates rows.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError, WorkdirError

Row = dict[str, Any]
Mark = dict[str, int]  # {"bytes": length of a prefix of the file, "crc32": its checksum}

_CHUNK = 1 << 20


class Table:
    """An append-only file of rows that can be truncated to a mark."""

    def __init__(self, path: Path, mark: Mark | None, write: bool = True) -> None:
        """Opens `path` for appending after the rows described by `mark`; None starts an empty table.

        Without `write` nothing is opened or written: another process writes, and this one only keeps track.

        Raises:
          WorkdirError: the file does not begin with the rows of the mark, or cannot be written.
        """
        self.path = Path(path)
        self._end: Mark = {"bytes": 0, "crc32": 0} if mark is None else dict(mark)
        self._file = -1
        if not write:
            return
        if not fits(self.path, self._end):
            raise WorkdirError(
                f"{self.path} lost or changed rows that a checkpoint depends on; "
                f"delete {self.path.parent} to train this stage again"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._cut()
        except OSError as e:
            raise self._unwritable(e) from e

    def append(self, rows: Sequence[Row]) -> None:
        """Appends rows; they are flushed to the operating system, so they survive a kill of this process.

        Raises:
          WorkdirError: the disk is full or broken; the table is then as it was before.
        """
        data = "".join(strict_json.dumps(row) + "\n" for row in rows).encode()
        rest = memoryview(data if self._file >= 0 else b"")
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as e:
            self._cut()
            raise self._unwritable(e) from e
        self._end = {"bytes": self._end["bytes"] + len(data), "crc32": zlib.crc32(data, self._end["crc32"])}

    def mark(self) -> Mark:
        """Writes all rows to the disk and returns a mark of them."""
        try:
            if self._file >= 0:
                os.fsync(self._file)
        except OSError as e:
            raise self._unwritable(e) from e
        return dict(self._end)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _cut(self) -> None:
        os.ftruncate(self._file, self._end["bytes"])
        os.lseek(self._file, 0, os.SEEK_END)

    def _unwritable(self, error: OSError) -> WorkdirError:
        return WorkdirError(f"cannot write {self.path}: {error.strerror}")


def fits(path: Path, mark: Mark) -> bool:
    """Whether the file begins with the prefix described by the mark; a missing file counts as empty."""
    try:
        with open(path, "rb") as file:
            return _checksum(file, mark["bytes"]) == mark["crc32"]
    except OSError:
        return mark["bytes"] == 0


def is_mark(value: Any) -> bool:
    """Whether a value read from a file is a valid mark."""
    return isinstance(value, dict) and value.keys() == {"bytes", "crc32"} and all(map(is_count, value.values()))


def is_count(value: Any) -> bool:
    """Whether a value read from a file is an integer, at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read(path: Path, mark: Mark | None = None) -> list[Row]:
    """All rows of a table; an incomplete last line, of a table being written, is left out.

    Args:
      path: the file.
      mark: that the whole file must match; None for no check.

    Raises:
      LabError: the file cannot be read, does not match the mark, or has a damaged line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise LabError(f"cannot read {path}: {e.strerror}") from e
    if mark is not None and mark != {"bytes": len(data), "crc32": zlib.crc32(data)}:
        raise LabError(f"{path} was changed by something else; the same command trains its stage again")
    lines, rows = data.split(b"\n"), []
    for number, line in enumerate(lines, start=1):
        try:
            row = strict_json.loads(line) if line else None
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):  # the text after the last newline may be part of a row, or empty
            raise LabError(f"{path}, line {number}: not a row of a table; repair or delete the line")
    return rows


def _checksum(file: BinaryIO, length: int) -> int | None:
    """CRC-32 of the first `length` bytes; None if the file is shorter."""
    crc = 0
    while length > 0:
        chunk = file.read(min(length, _CHUNK))
        if not chunk:
            return None
        crc, length = zlib.crc32(chunk, crc), length - len(chunk)
    return crc
