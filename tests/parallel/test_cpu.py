import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
import threadpoolctl

from plasticity_jax.parallel import cpu

ROOT = Path(__file__).parents[2]
MAIN, SWEEP = "plasticity_jax.main --dry_run", "launch.sweep --memory_gb=1 --dry_run"


@pytest.mark.parametrize(
    ("command", "variable", "line"),
    [
        (MAIN, "JAX_PLATFORMS=cuda", "jax finds no device (JAX_PLATFORMS=cuda): "),
        pytest.param(
            *(SWEEP, "JAX_PLATFORMS=nonsense", "jax finds no device (JAX_PLATFORMS=nonsense): "), marks=pytest.mark.long
        ),
        pytest.param(MAIN, "JAX_ENABLE_X64=nonsense", "jax cannot be imported: ", marks=pytest.mark.slow),
    ],
)
def test_a_jax_that_does_not_start_is_one_line(command, variable, line):
    name, _, value = variable.partition("=")
    call = [sys.executable, "-m", *command.split(), "--config=configs/multistage.py:digits"]
    environ = os.environ | {name: value}
    done = subprocess.run(call, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: {line}")


def test_threads_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert cpu.threads() == 3


def test_systems_without_affinity_use_all_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cores, threads in ((8, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert cpu.threads() == threads


def test_lapack_works_with_one_thread_once_loaded(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")  # so that it is gone again at the end
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    with threadpoolctl.threadpool_limits(2, "blas"):
        jnp.linalg.svd(jnp.eye(2))  # loads the library
        cpu.use_one_lapack_thread()
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == {1}


@pytest.mark.parametrize(("asked", "threads"), [(None, "1"), ("2", "2")])
def test_lapack_that_is_not_loaded_yet_will_have_one_thread_unless_asked(asked, threads):
    code = "from plasticity_jax.parallel import cpu; cpu.use_one_lapack_thread(); import os; "
    code += "print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{threads}\n"
