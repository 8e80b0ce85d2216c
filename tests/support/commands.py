"""Calls the commands in this process with command-line arguments."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import app, flags
from absl.testing import flagsaver

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


def call(
    main: Callable[[Sequence[str]], int],
    *argv: str,
    capture: pytest.CaptureFixture[str],
    directory: Path = ROOT,
) -> Done:
    """Calls the `main` of a command in a directory; flags and config modules are removed afterwards.

    `capture` is `capsys`, or `capfd` where the command starts others.
    """
    app.define_help_flags()  # before the first call, otherwise they are removed with its flags
    sys.modules.pop("config_config", None)  # the module name of config files
    with contextlib.chdir(directory), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        try:
            status = main(argv)
        except SystemExit as end:  # of argparse
            status = end.code
    return Done(status, *capture.readouterr())


def refused(done: Done, message: str) -> None:
    """Asserts that a command wrote only one line of error."""
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("error: ") and message in done.err
