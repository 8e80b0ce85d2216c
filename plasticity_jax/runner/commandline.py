"""Command-line flags with a config file; every mistake is reported in one line."""

import functools
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from plasticity_jax.config import paths, validate
from plasticity_jax.errors import ConfigError, LabError
from plasticity_jax.runner import output


class _Tuples(tuple_parser.TupleParser):
    """Leaves text that is not a Python literal, such as `key=1,2`, to `config.parse`; no text is the empty tuple."""

    def parse(self, argument: object) -> tuple:
        if isinstance(argument, str) and not argument.strip():
            return ()
        try:
            return super().parse(argument)
        except ValueError:
            return (argument,)


config_flags.register_flag_parser_for_type(tuple, _Tuples())

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/multistage.py, or FILE:ARGUMENT.")
WORKDIR = flags.DEFINE_string("workdir", "", "Directory for all results; the same directory again resumes.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the plan.")
COMPILE_FOR = flags.DEFINE_string(
    "compile_for", "", "Compile for a described device: v5e:2x4, h100, h100:4, FILE:4; nothing is trained."
)


def start(
    run: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None, instead: Sequence[str] = ("dry_run",)
) -> int:
    """Runs a command with these arguments, or those of the process; returns the exit status.

    `instead` are the flags for which the command needs no workdir.
    absl's flags are global: values of an earlier call remain unless this call sets them.
    """
    output.outlive_readers()
    before = sys.argv
    sys.argv = before if argv is None else [before[0], *argv]  # where ml_collections looks for --config.KEY
    try:
        app.run(run, flags_parser=functools.partial(parse, instead=instead))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before


def parse(argv: Sequence[str], instead: Sequence[str] = ("dry_run",)) -> list[str]:
    """A flags parser for `absl.app.run`, for commands with --config and --workdir; `instead` as in `start`.

    On a mistake it exits with one line; absl and ml_collections would print a traceback or a list of all flags.
    """
    try:
        given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        file = _config_file(given)
        if file and not Path(file.partition(":")[0]).is_file():
            raise ConfigError(f"--config={file}: there is no such file")
        try:
            rest = flags.FLAGS(argv)
            _let_the_last_win(given)
        except LabError:
            raise
        except Exception as error:  # half a dozen types from absl and ml_collections, and all that config files raise
            raise ConfigError(_explain(error, file, given)) from error
        if not file:
            raise ConfigError("--config is missing")
        given_instead = [f"--{name}" for name in instead if flags.FLAGS[name].value]
        if len(given_instead) > 1:
            raise ConfigError(f"{' and '.join(given_instead)} exclude each other; give one of them")
        if not flags.FLAGS["workdir"].value and not given_instead:
            raise ConfigError("--workdir is missing")
        paths.given(WORKDIR.value or "")  # before jax is imported
        if rest[1:]:
            raise ConfigError(f"{rest[1]!r} is not a flag; arguments have the form --name=value")
        return rest
    except (LabError, flags.Error) as error:
        leave(" ".join(str(error).split()))


def leave(message: str) -> NoReturn:
    """Exits with status 1 and a one-line message."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _let_the_last_win(argv: Sequence[str]) -> None:
    """Uses the last value of a tuple that is given several times, as for all other keys; ml_collections joins them.

    `config.grid` is joined, since each flag adds an axis.
    """
    told: dict[str, list[str]] = {}
    for arg, following in itertools.pairwise([*argv[1:], ""]):
        match = re.fullmatch(r"--?(config\.[^=]*)(?:=(.*))?", arg, re.DOTALL)
        if match and match[1] in flags.FLAGS and isinstance(flags.FLAGS[match[1]], flags.MultiFlag):
            told.setdefault(match[1], []).append(following if match[2] is None else match[2])
    for name, values in told.items():
        if len(values) > 1 and name != "config.grid":
            flags.FLAGS[name].unparse()
            flags.FLAGS[name].parse(values[-1])


def _config_file(argv: Sequence[str]) -> str:
    for arg, following in itertools.pairwise([*argv[1:], ""]):
        if match := re.fullmatch(r"--?config(=.*)?", arg):
            return match[1][1:] if match[1] else following
    return ""


def _explain(error: Exception, file: str, argv: Sequence[str]) -> str:
    """The error message for an exception while absl parsed the flags."""
    overrides = [match[1] for arg in argv if (match := re.match(r"--?(?:no)?config\.([^=]*)", arg))]
    if not file:
        return "--config is missing" if overrides else str(error)
    try:
        values = validate.plain(flags.FLAGS["config"].parser.parse(file))
    except Exception as inside:
        return _blame(inside, file)
    for path in overrides:
        if not validate.has(path, values):
            return f"--config.{path}: there is no such key; did you mean {_spelled(validate.nearest(path, values))}?"
        if "[" not in path and not all(key.isidentifier() for key in path.split(".")):
            return f"--config.{path}: write this as {_spelled(path)}"
    return str(error)


def _blame(error: Exception, file: str) -> str:
    """The error message for an exception in a config file, with its line."""
    if isinstance(error, LabError):
        return str(error)
    if isinstance(error, (TypeError, ValueError)) and isinstance(error.__context__, Exception):
        error = error.__context__  # ml_collections wraps these, with the traceback as message
    path = file.partition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}{f':{lines[-1]}' if lines else ''}: {type(error).__name__}: {error}"


def _spelled(path: str) -> str:
    """A dotted path as the flag that ml_collections understands: `+` and `-` are operators to it."""
    flag = "--config" + "".join(f".{key}" if key.isidentifier() else f'["{key}"]' for key in path.split("."))
    return f"'{flag}'" if '"' in flag else flag
