"""Wall-clock time by kind of work, accumulated over restarts in a file."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from plasticity_jax.errors import WorkdirError
from plasticity_jax.parallel import multihost
from plasticity_jax.storage import workdir


class Clock:
    """Seconds by kind of work (`compile`, `train`, `evaluate`, `checkpoint`, ..), and `total`."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds: dict[str, float] = {}
        with contextlib.suppress(WorkdirError, TypeError, ValueError):  # a damaged clock must not stop the run
            self.seconds = {kind: float(spent) for kind, spent in dict(workdir.read_json(path)).items()}
        self.before = self.seconds.get("total", 0.0)
        self.start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Context whose time is added to `kind`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float) -> None:
        """Adds `seconds` to `kind`."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def save(self) -> dict[str, float]:
        """Writes the file (in the first process) and returns its content."""
        self.seconds["total"] = self.before + time.perf_counter() - self.start
        if multihost.first():
            workdir.write_json(self.path, self.seconds)
        return self.seconds
