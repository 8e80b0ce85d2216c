"""The compiler options for each backend; the programs themselves are compiled by the tests of their results."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

import jax
import numpy as np
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
    fast = {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
    assert compiler.options() == fast
    assert compiler.options(quickly=True) == {**fast, "xla_backend_optimization_level": 1}
    assert compiler.options(once=True, threads=False) == {
        "xla_backend_optimization_level": 1,
        "xla_cpu_multi_thread_eigen": False,
    }


@pytest.mark.parametrize("few", ["once", "seldom"])
def test_what_runs_seldom_on_a_tpu_is_compiled_with_little_effort(backend, few):
    backend("tpu")
    assert compiler.options(**{few: True}) == {"exec_time_optimization_effort": -1.0}


class Never(Executor):
    """Threads that never come to do anything."""

    def submit(self, fn, /, *args, **kwargs):
        return Future()


@pytest.mark.parametrize("make_pool", [Never, lambda: ThreadPoolExecutor(1)], ids=["never", "one"])
def test_a_pool_compiles_what_is_not_needed_at_once(make_pool):
    with make_pool() as pool:
        program = compiler.compile_one(lambda x: 2 * x, np.float32(3), pool=pool)
        assert program(np.float32(3)) == 6 and program.footprint == program.footprint


def test_an_error_of_a_thread_is_one_of_the_caller():
    """It is raised where the program is needed."""

    class Failing(Never):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_running_or_notify_cancel()
            future.set_exception(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"))
            return future

    program = compiler.compile_one(lambda x: 2 * x, np.float32(3), pool=Failing())
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        program(np.float32(3))
