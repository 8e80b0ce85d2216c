"""Checks paths that a user gives, before anything is read or written."""

import os
import re
from pathlib import Path

from plasticity_jax.errors import LabError

BELOW = 700  # bytes of the longest path inside a working directory, that of a checkpoint's file
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def given(path: str | os.PathLike[str]) -> Path:
    """The path that a user wrote, with `~` expanded.

    Raises:
      LabError: it is a URL, the home of an unknown user, or not valid UTF-8.
    """
    text = os.fspath(path)
    if _ADDRESS.match(text):
        raise LabError(
            f"{text} is an address, not a directory: mount it (gcsfuse, s3fs, rclone ..) and give the mount, "
            f"or for a local directory of this name write ./{text}"
        )
    if "\0" in text or text != text.encode(errors="replace").decode():
        raise LabError(f"{text!a} is not a valid UTF-8 path; use another directory")
    expanded = os.path.expanduser(text)
    if expanded == text and text.startswith("~"):
        raise LabError(f"{text}: there is no such user; for a local directory of this name write ./{text}")
    return Path(expanded)


def check_length(directory: Path) -> None:
    """Checks that paths of checkpoints below `directory` stay within the system's limit.

    Raises:
      LabError: the directory's path is too long.
    """
    longest = os.pathconf("/", "PC_PATH_MAX") - BELOW
    if len(os.fsencode(directory.absolute())) > longest:
        raise LabError(
            f"{str(directory)[:60]}..: the path is too long; use another directory, of {longest} bytes at most"
        )
