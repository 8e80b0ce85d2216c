"""Command-line arguments of the commands without a config, and the exit statuses of all commands."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from plasticity_jax.config import paths
from plasticity_jax.errors import LabError

FINISHED = 0
FAILED = 1
AGAIN = 75  # EX_TEMPFAIL of sysexits.h: stopped and saved; the same command continues


class Parser(argparse.ArgumentParser):
    """argparse, but errors are one line `error: ..` with exit status 1, as in all other commands."""

    def __init__(self, command: str, description: str):
        super().__init__(prog=f"python -m plasticity_jax.{command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(FAILED)


def directory(text: str) -> Path:
    """An absolute path; it need not exist."""
    try:
        return paths.given(text).absolute()
    except LabError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """An integer, at least 1."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)
