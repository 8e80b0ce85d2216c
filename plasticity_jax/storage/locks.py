"""Locks of files, which the system lets go of however their process ends; and what is left where a disk has none."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

WITHOUT = "PLASTICITY_JAX_WITHOUT_LOCKS"  # environment variable: not empty where a disk without locks will do
_NONE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


class Taken(Exception):
    """Another process holds it; the text says which."""


class NoLocks(Exception):
    """The disk has none, and nobody said that this will do."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold the lock of a file (made if need be); gives whether the disk has locks.

    Raises:
      Taken: another process holds it; on a disk without locks, another process of this machine.
      NoLocks: the disk has none, and `WITHOUT` is not set.
      OSError: the file cannot be opened or written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    locked = True
    try:
        try:
            _flock(file)
        except BlockingIOError:
            raise Taken(_holder(file) or "another") from None
        except OSError as error:
            if error.errno not in _NONE:
                raise
            if not os.environ.get(WITHOUT):
                raise NoLocks(error.strerror) from error
            if _runs(_holder(file)):
                raise Taken(_holder(file)) from None
            locked = False
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield locked
        finally:
            if not locked:
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def held(path: Path) -> bool:
    """Whether a process, on whatever machine the file system reaches, holds the lock of a file.

    On a disk without locks, whether a process of this machine does.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NONE or _runs(_holder(file))
    finally:
        os.close(file)
    return False


def _flock(file: int) -> None:
    """Take the lock; whoever looks whether it is held has it for an instant, and is waited for."""
    for pause in (0.01, 0.1, 0.3, None):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is None:
                raise
            time.sleep(pause)


def _holder(file: int) -> str:
    """The process that wrote its name into the file."""
    return os.pread(file, 200, 0).decode(errors="replace").strip()


def _runs(holder: str) -> bool:
    """Whether a holder is a process of this machine that has not ended."""
    match = re.fullmatch(r"process ([1-9][0-9]{0,8}) on (.+)", holder)
    if not match or match[2] != socket.gethostname():
        return False
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
