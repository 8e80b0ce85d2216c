"""File locks, released by the system when the process ends; and a substitute on disks without locks."""

import contextlib
import errno
import fcntl
import functools
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

WITHOUT = "PLASTICITY_JAX_WITHOUT_LOCKS"  # environment variable: if not empty, disks without locks are accepted
_NONE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


class Taken(Exception):
    """Another process holds the lock; the message names it."""


class NoLocks(Exception):
    """The disk has no locks, and the user has not accepted this."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Context that holds the lock of a file, created if missing; yields whether the disk has locks.

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
        os.pwrite(file, f"{_this_process()}\n".encode(), 0)
        try:
            yield locked
        finally:
            if not locked:
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def lost(path: Path) -> bool:
    """Whether the file of a lock that this process holds was deleted, or names another process."""
    try:
        return path.read_text().strip() != _this_process()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):  # a disk that does not answer now
        return False


def held(path: Path) -> bool:
    """Whether a process on any machine that shares the file system holds the lock of a file.

    On a disk without locks, only processes of this machine are known.
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


def _this_process() -> str:
    return f"process {os.getpid()} on {_host()}"


@functools.cache
def _host() -> str:
    """The name of this machine when it was first asked for; a laptop's may change in another network."""
    return socket.gethostname()


def _flock(file: int) -> None:
    """Takes the lock; waits briefly, since a process that checks the lock holds it for an instant."""
    for pause in (0.01, 0.1, 0.3, None):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is None:
                raise
            time.sleep(pause)


def _holder(file: int) -> str:
    """The process that is recorded in the file."""
    return os.pread(file, 200, 0).decode(errors="replace").strip()


def _runs(holder: str) -> bool:
    """Whether a holder is a running process of this machine."""
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
