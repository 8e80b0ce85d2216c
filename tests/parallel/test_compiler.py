"""The compiler options for each backend; the programs themselves are compiled by the tests of their results."""

import jax
import pytest

from plasticity_jax.models import products
from plasticity_jax.parallel import compiler


@pytest.fixture
def backend(monkeypatch):
    """Pretends that jax has the given backend."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    return lambda name: monkeypatch.setattr(jax, "default_backend", lambda: name)


def test_a_gpu_has_whole_loops_in_graphs(backend):
    backend("gpu")
    assert {"WHILE", "CONVOLUTION"} < set(compiler.options()["xla_gpu_enable_command_buffer"].split(","))
    assert compiler.options().keys() == {"xla_gpu_enable_command_buffer"}


def test_products_of_all_runs_are_those_of_cublas(backend):
    backend("gpu")
    with products.together():
        assert compiler.options()["xla_gpu_enable_triton_gemm"] is False


@pytest.mark.parametrize("value", ["", "FUSION"])
def test_graphs_are_switched_by_the_variable_of_xla(backend, monkeypatch, value):
    backend("gpu")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_gpu_autotune_level=0 --xla_gpu_enable_command_buffer={value}")
    assert compiler.options() == {}
    with products.together():
        assert compiler.options() == {"xla_gpu_enable_triton_gemm": False}


def test_other_backends_know_nothing_of_graphs(backend):
    backend("tpu")
    assert compiler.options() == compiler.options(threads=False) == {}
    backend("cpu")
    assert compiler.options() == {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
    assert compiler.options(once=True, threads=False) == {
        "xla_backend_optimization_level": 1,
        "xla_cpu_multi_thread_eigen": False,
    }


@pytest.mark.parametrize("few", ["once", "seldom"])
def test_what_runs_seldom_on_a_tpu_is_compiled_with_little_effort(backend, few):
    backend("tpu")
    assert compiler.options(**{few: True}) == {"exec_time_optimization_effort": -1.0}
