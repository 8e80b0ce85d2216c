"""Paths that a user gives: what no file system of this machine has is refused before anything is done."""

import os
import re
from pathlib import Path

from plasticity_jax.errors import LabError

BELOW = 700  # bytes of the longest path inside a working directory: names, and those of checkpoints
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def given(path: str | os.PathLike[str]) -> Path:
    """A path as a user wrote it, `~` expanded.

    Raises:
      LabError: it is the address of a bucket or a site, of a user who is not there, or not UTF-8.
    """
    text = os.fspath(path)
    if _ADDRESS.match(text):
        raise LabError(
            f"{text} is an address and no directory: mount it (gcsfuse, s3fs, rclone ..) and give the directory of the "
            f"mount; a folder of this name is ./{text}"
        )
    if "\0" in text or text != text.encode(errors="replace").decode():
        raise LabError(f"{text!a} is no path in UTF-8; use another directory")
    expanded = os.path.expanduser(text)
    if expanded == text and text.startswith("~"):
        raise LabError(f"{text}: there is no such user; a folder of this name is ./{text}")
    return Path(expanded)


def check_length(directory: Path) -> None:
    """Refuse a working directory below which no checkpoint would have room for its path.

    Raises:
      LabError: its path is too long.
    """
    longest = os.pathconf("/", "PC_PATH_MAX") - BELOW
    if len(os.fsencode(directory.absolute())) > longest:
        raise LabError(
            f"{str(directory)[:60]}..: the path is too long; use another directory, of {longest} bytes at most"
        )
