"""Arguments of the commands that take no config, of which a mistake is one line; and the exit statuses of all."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from plasticity_jax.config import paths
from plasticity_jax.errors import LabError

FINISHED = 0
FAILED = 1
AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on from here


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is `error: ..` and exit status 1, as with all other commands."""

    def __init__(self, command: str, description: str):
        super().__init__(prog=f"python -m plasticity_jax.{command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(FAILED)


def directory(text: str) -> Path:
    """A directory, from the root on; it need not be there."""
    try:
        return paths.given(text).absolute()
    except LabError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
