"""Compiles one function for the target's devices, with XLA's options for the backend."""

import os
import time
from collections.abc import Callable
from typing import Any

import jax

from plasticity_jax import target
from plasticity_jax.models import products
from plasticity_jax.parallel.memory import Footprint, footprint

Tree = Any

# Operations that XLA puts into CUDA graphs.  The default leaves out convolutions and loops, so the host would launch
# each convolution and synchronise before each step.
IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONVOLUTION,WHILE,CONDITIONAL"


class Program:
    """A compiled function with its compile time in seconds and its memory (for `loop` that of one run).

    `compiled` is jax's object, which gives access to the program's text.
    """

    def __init__(
        self,
        call: Callable[..., Tree],
        seconds: float,
        footprint: Footprint | None = None,
        compiled: jax.stages.Compiled | None = None,
    ):
        self.call = call
        self.seconds = seconds
        self.footprint = footprint
        self.compiled = compiled

    def __call__(self, *args: Tree) -> Tree:
        return self.call(*args)


def compile_one(
    fn: Callable[..., Tree],
    *args: Tree,
    donate: bool = False,
    once: bool = False,
    threads: bool = True,
    quickly: bool = False,
    seldom: bool = False,
    **shardings: Any,
) -> Program:
    """Compiles `fn` for `args`, given as arrays or shapes.

    Args:
      fn: the function.
      *args: arrays or shapes.
      donate: whether to donate the buffers of the first argument.
      once: for programs that run too seldom to be worth optimising.
      threads: whether a CPU device uses several threads.
      quickly: for large programs that run a few times: on CPU optimises nothing except products, which are a library's.
      seldom: for short programs that run about once in an epoch: the TPU compiler spends little effort.
      **shardings: those of `jax.jit`.
    """
    start = time.perf_counter()
    where = shardings or target.shardings()
    given = (0,) if donate else ()
    jitted = jax.jit(fn, donate_argnums=given, compiler_options=options(once, threads, quickly, seldom), **where)
    call = jitted.lower(*args).compile()
    return Program(call, time.perf_counter() - start, footprint(call), call)


def options(once: bool = False, threads: bool = True, quickly: bool = False, seldom: bool = False) -> dict[str, Any]:
    """XLA's options for the target's backend; on a GPU the environment variable XLA_FLAGS has precedence."""
    settings: dict[str, Any] = {}
    if target.backend() == "cpu":
        # XLA's default CPU preset fuses the normalisation into the weight gradients, which recomputes it many times,
        # and takes seconds to optimise random number generation.
        settings = (
            {"xla_backend_optimization_level": 1} if once else {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
        )
        if quickly:
            settings["xla_backend_optimization_level"] = 0
        if not threads:
            settings["xla_cpu_multi_thread_eigen"] = False
    if target.backend() == "tpu" and (once or seldom):
        settings = {"exec_time_optimization_effort": -1.0}  # half as long to compile, several times to run
    if target.backend() == "gpu":
        settings = {"xla_gpu_enable_command_buffer": IN_GRAPHS}
        if products.are_together():
            # Use cuBLAS: Triton would need two kernels per product where XLA splits a long sum.
            settings["xla_gpu_enable_triton_gemm"] = False
        named = {flag.partition("=")[0] for flag in os.environ.get("XLA_FLAGS", "").split()}
        settings = {name: value for name, value in settings.items() if f"--{name}" not in named}
    return settings
