"""Tests on a real SLURM: left out unless asked for with `-m slurm`, since a job that starts again waits for minutes."""

import shutil

import pytest

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.get_closest_marker("slurm")]
    if "slurm" not in config.option.markexpr:
        items[:] = [item for item in items if item not in here]
        config.hook.pytest_deselected(items=here)
    elif reason := _missing():
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if "slurm" not in config.option.markexpr or _missing():
        why = _missing() or "`make test-slurm` runs them"
        terminalreporter.write_line(f"tests on a real SLURM were left out: {why}")


def _missing() -> str:
    gone = [name for name in COMMANDS if not shutil.which(name)]
    return f"there is no {gone[0]} on this machine" if gone else ""
