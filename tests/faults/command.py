"""The work of a child process: the real command in small steps, which can stop itself at any file operation.

Children are forked from a server that has imported everything below, so a start costs no imports.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401  what a study on digits imports on its way

from plasticity_jax import experiment, main  # noqa: F401
from plasticity_jax.launch import local
from plasticity_jax.runner import dispatch, saver

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def command(
    argv: Sequence[str],
    directory: str,
    log: str,
    stop_at: int,
    count_to: str,
    jump: float,
    environ: Mapping[str, str],
) -> None:
    """Be `python -m plasticity_jax.main ARGV`, with checkpoints before every call and calls of a few steps.

    Args:
      argv: the flags.
      directory: the working directory; operations on files below it are counted.
      log: a file for stdout and stderr.
      stop_at: the file operation before which the process stops itself (SIGSTOP); 0 for never.
      count_to: a file that the number of operations is written to at the end; empty for none.
      jump: seconds by which the system's time jumps at `stop_at`, instead of a stop; 0 for none.
      environ: added to the environment.
    """
    os.environ.update(environ)
    print_to(log)
    dispatch.CALL_SECONDS, saver.CHECKPOINT_SHARE = 0.005, 0
    operations = watch(directory, stop_at, jump)
    try:
        sys.exit(main.main(argv))
    finally:
        if count_to:
            Path(count_to).write_text(str(operations()))
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def launch(argv: Sequence[str], log: str) -> None:
    """Run `python -m launch.local ARGV` as the leader of a process group to which its jobs belong."""
    os.setsid()
    print_to(log)
    sys.exit(local.main(argv))


def print_to(log: str) -> None:
    """Redirect stdout and stderr to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)


def watch(directory: str, stop_at: int, jump: float) -> Any:
    """Count this process's operations on files below a directory, and act at one of them; returns the counter."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and args and str(args[0]).startswith(directory):
            count += 1
            if count == stop_at:
                shift(jump) if jump else os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)
    return lambda: count


def shift(seconds: float) -> None:
    """Shift the time of day that this process sees from now on."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
