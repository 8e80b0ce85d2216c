"""Writes the rows of the long table as TensorBoard event files.

    tensorboard --logdir DIR/tensorboard

lists the runs as `BRANCH,KEY=VALUE/seedN`; `?runColorGroup=regex:(.*)/` in its address gives each branch one colour.
Tags are KIND/METRIC/STAGE, as `accuracy/test/tune`: TensorBoard sorts by name, so shows the test accuracy first, its
stages beside each other.  x is the step since the stage began.

The metrics table is authoritative: at each start the event files are rewritten from it, so rows that were removed from
the table are also removed here.  Event files are not part of checkpoints.  Their times are the times of writing.
"""

import math
import struct
import time
import urllib.parse
import zlib
from collections.abc import Sequence
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from plasticity_jax.errors import WorkdirError
from plasticity_jax.storage.metrics import Row

_LONGEST = 200  # characters of a directory name; file systems take 255 bytes
_KINDS = ("accuracy", "loss")  # possible endings of the names of metrics
_OTHER = "network"  # the diagnostics; sorted last


class Board:
    """Event files of the runs of one stage of one pack.

    A run has one directory for all its stages, also if several packs contain it (it is then the same run).
    """

    def __init__(self, directory: Path, pack: str, stage: str, rows_so_far: Sequence[Row]) -> None:
        """Replaces this stage's event files below `directory` by those of the rows so far.

        Raises:
          WorkdirError: they cannot be deleted or written.
        """
        self.directory = Path(directory)
        # The time in the name tells a running TensorBoard that these are new files.
        owner = f"@{pack}@{stage}"  # names have no @
        self._name = f"events.out.tfevents.{time.time_ns() // 1000}{owner}"
        try:
            for path in self.directory.rglob("events.out.tfevents.*"):
                if path.name.endswith(owner):
                    path.unlink()
        except OSError as e:
            raise WorkdirError(f"cannot delete old event files in {directory}: {e.strerror}") from e
        self.append(rows_so_far)

    def append(self, rows: Sequence[Row]) -> None:
        """Writes rows; files are closed afterwards, since there may be more runs than a process may open files.

        Raises:
          WorkdirError: they cannot be written.
        """
        events: dict[str, bytearray] = {}
        for row in rows:
            number = math.nan if row["value"] is None else row["value"]  # TensorBoard marks NaNs
            value = Summary.Value(tag=tag(row["metric"], row["stage"]), simple_value=number)
            event = Event(wall_time=time.time(), step=row["step"], summary=Summary(value=[value]))
            events.setdefault(row["run"], bytearray()).extend(_record(event))
        for run, data in events.items():
            path = self.directory / run_directory(run) / self._name
            try:
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    data[:0] = _record(Event(wall_time=time.time(), file_version="brain.Event:2"))
                with open(path, "ab") as file:
                    file.write(data)
            except OSError as e:
                raise WorkdirError(f"cannot write {path}: {e.strerror}") from e

    def close(self) -> None:
        """Does nothing, since no file stays open between calls."""


def tag(metric: str, stage: str) -> str:
    """`accuracy/test/tune` for `test_accuracy` in `tune`, `network/weight_norm/head/tune` for a diagnostic."""
    name, _, kind = metric.rpartition("_")
    return f"{kind}/{name}/{stage}" if name and kind in _KINDS else f"{_OTHER}/{metric}/{stage}"


def run_directory(run: str) -> Path:
    """`BRANCH,KEY=VALUE/seedN`: the id of a run as two directory names valid on any file system."""
    head, _, seed = run.rpartition("/")
    name = urllib.parse.quote(head, safe=" ,=+@").replace("..", "%2E%2E")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}~{zlib.crc32(head.encode()):08x}"
    return Path(name, seed)


def _record(event: Event) -> bytes:
    """An event framed as a TFRecord: length, checksum of the length, event, checksum of the event."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
