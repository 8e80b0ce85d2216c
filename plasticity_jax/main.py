"""The command: train what a config asks for, or go on where it stopped.

    python -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=DIR [--dry_run] [--config.KEY=VALUE ..]

Exit status: 0 finished, 1 an error (one line says which) or runs that diverged, 75 stopped early (start it again).
"""

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from plasticity_jax import config as configs
from plasticity_jax.errors import ConfigError, LabError, Preempted

STOPPED = 75  # EX_TEMPFAIL: try again later


class _Tuples(tuple_parser.TupleParser):
    """Leaves what is no Python literal, as `a=1,2`, to `config.parse`."""

    def parse(self, argument: object) -> tuple:
        try:
            return super().parse(argument)
        except ValueError:
            return (argument,)


config_flags.register_flag_parser_for_type(tuple, _Tuples())
CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/multistage.py or FILE:ARGUMENT.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for all results; a stopped study goes on in the same one.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be trained and how long it may take, and train nothing.")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """A flags parser for `app.run` that answers mistakes with one line, not with a traceback or a list of flags."""
    try:
        given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        file = _config_file(given)
        if file and not Path(file.partition(":")[0]).is_file():
            raise ConfigError(f"--config={file}: there is no such file")
        try:
            rest = flags.FLAGS(argv)
        except Exception as error:  # half a dozen types from absl and ml_collections, and all that config files raise
            raise error if isinstance(error, LabError) else ConfigError(_explain(error, file, given)) from error
        for flag in (CONFIG, WORKDIR):
            if not flag.value:
                raise ConfigError(f"--{flag.name} is missing")
        if rest[1:]:
            raise ConfigError(f"{rest[1]!r} is no flag; arguments have the form --name=value")
        return rest
    except (LabError, flags.Error) as error:
        _exit(error)


def main(argv: Sequence[str]) -> int:
    """Run the study; returns the exit status."""
    del argv
    try:
        from plasticity_jax import experiment  # imports jax, which takes seconds that a wrong flag should not cost

        result = experiment.run(CONFIG.value, WORKDIR.value, dry_run=DRY_RUN.value)
    except LabError as error:
        _exit(error)
    except (Preempted, KeyboardInterrupt):
        return STOPPED
    return 0 if DRY_RUN.value or result["status"] == "finished" else 1


def _exit(error: Exception) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(1)


def _config_file(argv: Sequence[str]) -> str:
    for arg, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        if match := re.fullmatch(r"--?config(=.*)?", arg):
            return match[1][1:] if match[1] else following
    return ""


def _explain(error: Exception, file: str, argv: Sequence[str]) -> str:
    """One line about what went wrong while absl parsed the flags."""
    overrides = [match[1] for arg in argv if (match := re.match(r"--?(?:no)?config\.([^=]*)", arg))]
    if not file:
        return "--config is missing" if overrides else str(error)
    try:
        values = configs.plain(flags.FLAGS[CONFIG.name].parser.parse(file))
    except Exception as inside:
        # ml_collections packs some errors, with a whole traceback as the message, into others.
        cause = inside.__context__ if isinstance(inside, (TypeError, ValueError)) and inside.__context__ else inside
        frames = [
            frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == file.partition(":")[0]
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else f"--config={file}"
        return f"{place}: {type(cause).__name__}: {cause}"
    for path in overrides:
        if not configs.has(path, values):
            return f"--config.{path}: there is no such key; did you mean {_spelled(configs.nearest(path, values))}?"
        if "[" not in path and not all(key.isidentifier() for key in path.split(".")):
            return f"--config.{path}: this has to be written {_spelled(path)}"
    return str(error)


def _spelled(path: str) -> str:
    """A dotted path as the flag that ml_collections understands: `+` and `-` are operators to it."""
    flag = "--config" + "".join(f".{key}" if key.isidentifier() else f'["{key}"]' for key in path.split("."))
    return f"'{flag}'" if '"' in flag else flag


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
