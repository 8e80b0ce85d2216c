"""The devices that programs are compiled for; compiling for described ones is in tests/aot."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import target
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import compiler, memory, run_axis

ROOT = Path(__file__).parents[1]
ASKS = re.compile(
    r"\bjax\.(default_backend|(local_)?device(s|_count)|extend)\b|xla_bridge|xla_client|get_topology_desc"
)


def test_only_one_module_asks_jax_for_devices():
    files = [path for package in ("plasticity_jax", "launch") for path in sorted((ROOT / package).rglob("*.py"))]
    asking = [path.stem for path in files if ASKS.search(path.read_text())]
    assert asking == ["target"]


def test_nothing_else_compiles():
    """`compiler` for the target, `target` to query a compiler, three to run kept networks, and `ahead` on the CPU."""
    files = sorted((ROOT / "plasticity_jax").rglob("*.py"))
    compiling = [path.stem for path in files if re.search(r"\bjax\.(jit|pmap)\b", path.read_text())]
    assert compiling == ["compiler", "between", "kept", "probing", "target", "ahead"]


def test_without_a_description_the_devices_are_those_of_jax():
    assert (target.devices(), target.local_devices()) == (jax.devices(), jax.local_devices())
    assert (target.backend(), target.is_described()) == (jax.default_backend(), False)


def test_a_program_is_compiled_for_the_devices_that_are_meant():
    other = jax.devices()[1]
    with target.using(target.Target((other,), 7 * 10**9)):
        assert (target.devices(), target.local_devices(), target.is_described()) == ([other], [other], True)
        assert memory.free(other) == 7 * 10**9
        assert run_axis.mesh_for("map", 3).devices.tolist() == [[other]]
        states, rows = jnp.ones((3, 2)), jnp.ones(3)
        program = run_axis.compile_over(lambda x, y: x + y, "map", states, rows, donate=False)
        assert program(*jax.device_put((states, rows), other)).devices() == {other}
        one = compiler.compile_one(lambda x: 2 * x, np.float32(1))
        assert one(jax.device_put(np.float32(1), other)).devices() == {other}
    assert compiler.compile_one(lambda x: 2 * x, np.float32(1))(np.float32(1)).devices() == {jax.devices()[0]}


def test_a_target_that_does_not_tell_its_memory():
    here = jax.devices()[0]
    with target.using(target.Target((here,), None)):
        assert target.memory_stats(here) == {}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("v5e:2x4", rf'run: pip install "jax\[tpu\]=={jax.__version__}"'),
        ("h100:4", r"run: pip install jax-cuda12-plugin==[\d.]+ jax-cuda12-pjrt==[\d.]+"),
        ("h100:0", "a number of GPUs above 0"),
        ("h200", r"no such device or file; .* h100, .*v5e:"),
        ("", "no such device or file"),
        ("no/such.txtpb:2", "no such device or file"),
    ],
)
def test_one_line_says_what_is_missing(name, what, monkeypatch):
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(LabError, match=rf"^--compile_for={name}: .*{what}"), target.described(name):
        pass
    assert not target.is_described()
    assert jax.config.values["jax_enable_compilation_cache"]


def test_the_description_of_the_gpu_comes_with_the_lab():
    text = (target.GPUS / "h100.txtpb").read_text()
    assert "device_memory_size: 84942979072" in text and 'driver_version: "13.0.0"' in text
