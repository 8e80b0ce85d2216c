"""The machine that this process runs on."""

import os


def threads() -> int:
    """CPU cores that this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
