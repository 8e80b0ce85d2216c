"""Real full and read-only disks, where mounting is allowed.

The campaign lives in a mount namespace of its own, so that whatever it mounts is gone with its last process.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MARK = "PLASTICITY_JAX_FAULTS_MOUNTS"  # set in the process that has its own namespace
ALONE = ["unshare", "--mount", "--propagation", "private"]
TRIES = ([*ALONE], [*ALONE, "--map-root-user"])  # as root, or where users may have namespaces


def isolate(argv: list[str]) -> None:
    """Start this Python again in its own mount namespace, if the system allows it; otherwise return."""
    if MARK in os.environ:
        return
    for prefix in TRIES:
        try:
            trial = [*prefix, "sh", "-c", "d=$(mktemp -d) && mount -t tmpfs none $d && umount $d && rmdir $d"]
            if not subprocess.run(trial, capture_output=True).returncode:
                os.environ[MARK] = "1"
                os.execvp(prefix[0], [*prefix, sys.executable, *argv])
        except OSError:
            return


def can_mount() -> bool:
    """Whether this process may mount."""
    return MARK in os.environ


def small(directory: Path) -> None:
    """Put an empty disk of 2 MB and 300 files onto `directory`.

    Raises:
      subprocess.CalledProcessError: it cannot be mounted.
    """
    _run("mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=300", "none", str(directory))


def unmounted(directory: Path) -> None:
    """Unmount what is mounted on the directory."""
    _run("umount", "-l", str(directory))


def fill(path: Path, left: int, what: str) -> None:
    """Use up a disk through the file or folder `path`, except for `files` files or `blocks` blocks."""
    free = os.statvfs(path.parent)
    if what == "blocks":
        path.write_bytes(b"x" * max(0, free.f_bavail - left) * free.f_frsize)
        return
    path.mkdir()
    for number in range(free.f_favail - 1 - left):
        (path / str(number)).touch()


class Locked:
    """A folder that is read-only, as is everything in it, until `release`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.held = True
        if can_mount():
            _run("mount", "--bind", str(directory), str(directory))
            _run("mount", "-o", "remount,ro,bind", str(directory))
        elif os.geteuid():
            _run("chmod", "-R", "a-w", str(directory))
        else:
            _run("chattr", "-R", "+i", str(directory))

    def release(self) -> None:
        """Let it be written again."""
        if not self.held:
            return
        self.held = False
        if can_mount():
            unmounted(self.directory)
        elif os.geteuid():
            _run("chmod", "-R", "u+w", str(self.directory))
        else:
            _run("chattr", "-R", "-i", str(self.directory))


class Frozen:
    """A folder in which nothing can be created or deleted until `release`; its files can be written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.held = True
        _run(*(["chattr", "+i"] if not os.geteuid() else ["chmod", "a-w"]), str(directory))

    def release(self) -> None:
        """Let it be changed again."""
        if self.held:
            self.held = False
            _run(*(["chattr", "-i"] if not os.geteuid() else ["chmod", "u+w"]), str(self.directory))


def can_freeze() -> bool:
    """Whether `Frozen` works here; as root it needs a file system with attributes."""
    if os.geteuid():
        return True
    with tempfile.TemporaryDirectory() as scratch:
        try:
            Frozen(Path(scratch)).release()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
