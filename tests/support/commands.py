"""The commands, called in this process by what the shell would give them."""

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
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def call(
    main: Callable[[Sequence[str]], int],
    *argv: str,
    capture: pytest.CaptureFixture[str],
    directory: Path = ROOT,
) -> Done:
    """Call the `main` of a command from a directory; flags and names of config files do not outlive the call.

    `capture` is `capsys`, or `capfd` where the command starts others.
    """
    app.define_help_flags()  # once and for all: of the first call, they would go with its flags
    sys.modules.pop("config_config", None)  # what config files are imported as
    with contextlib.chdir(directory), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        try:
            status = main(argv)
        except SystemExit as end:  # of argparse
            status = end.code
    return Done(status, *capture.readouterr())


def refused(done: Done, message: str) -> None:
    """Assert that a command wrote one line of error, and nothing else."""
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("error: ") and message in done.err
