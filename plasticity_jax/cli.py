"""The command `plasticity`, which has all commands of the lab as subcommands and works in any directory.

    plasticity run multistage:digits --workdir=runs/demo      # a shipped config by name, or any file
    plasticity figures runs/demo --out runs/demo/figures

Modules in the working directory can be used (custom configs, and `module:function` in them), but do not shadow the
lab's modules, as they would with `python -m`.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax import configs
from plasticity_jax.runner import output

COMMANDS = {
    "run": ("plasticity_jax.main", "train the study of a config, or continue it"),
    "figures": ("plasticity_jax.analysis.figures", "draw the figures of studies"),
    "claims": ("plasticity_jax.analysis.verify", "test the claims of the papers on studies"),
    "remedies": ("plasticity_jax.analysis.remedies", "compare remedies: recovered share, cost, settings"),
    "power": ("plasticity_jax.analysis.power", "compute how many seeds a claim needs"),
    "report": ("plasticity_jax.analysis.report.report", "write one HTML page about studies"),
    "lines": ("plasticity_jax.lines", "compute the loss between fresh and warm networks"),
    "collect": ("plasticity_jax.analysis.collect", "export the numbers of a study to a few small files"),
    "reproduce": ("plasticity_jax.analysis.reproduce", "train a published study again, and compare"),
    "sweep": ("plasticity_jax.launch.sweep", "plan a sweep"),
    "local": ("plasticity_jax.launch.local", "plan a sweep and train it on this machine"),
    "slurm": ("plasticity_jax.launch.slurm", "plan a sweep and submit it to SLURM"),
    "status": ("plasticity_jax.launch.status", "show the state of all jobs of a sweep"),
}
WITH_CONFIG = ("run", "sweep", "local", "slurm")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand given by these arguments, or those of the process; returns the exit status."""
    output.outlive_readers()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    command, *rest = words
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        return _fail(f"{command!r} is not a command; {hint}")
    if command in WITH_CONFIG and rest and not rest[0].startswith("-"):
        name, *rest = rest
        file = config_file(name)
        if file is None:
            return _fail(f"{name!r} is neither a file nor a shipped config; choose one of {', '.join(shipped())}")
        rest = [f"--config={file}", *rest]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # after the lab's modules
    return importlib.import_module(COMMANDS[command][0]).main(rest) or 0


def usage() -> str:
    """The help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  plasticity {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    offered = f"Shipped configs, as in `plasticity run multistage:digits --workdir=DIR`: {', '.join(shipped())}."
    return "\n".join([*lines, "", offered])


def shipped() -> list[str]:
    """The names of the configs that come with the lab."""
    return sorted(path.stem for path in _configs().glob("*.py") if path.stem not in ("__init__", "base", "presets"))


def config_file(name: str) -> str | None:
    """The value of --config for a shipped config or a file, both optionally with `:ARGUMENT`; None if not found."""
    stem, colon, argument = name.partition(":")
    if Path(stem).is_file():
        return name
    return f"{_configs() / stem}.py{colon}{argument}" if stem in shipped() else None


def _configs() -> Path:
    return Path(configs.__file__).parent


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
