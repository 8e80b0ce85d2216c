"""Programs compiled for described TPUs and GPUs: left out unless asked for with `-m aot`, since it takes minutes."""

import importlib.util

import pytest

COMPILERS = ("libtpu", "jax_cuda12_plugin")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.get_closest_marker("aot")]
    missing = [name for name in COMPILERS if importlib.util.find_spec(name) is None]
    if "aot" not in config.option.markexpr:
        items[:] = [item for item in items if item not in here]
        config.hook.pytest_deselected(items=here)
    elif missing:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=f"there is no {missing[0]} in this environment"))
