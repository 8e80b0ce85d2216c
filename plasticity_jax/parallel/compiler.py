"""Compiling one function for the target's devices, and what XLA is told for them."""

import os
import time
from collections.abc import Callable
from typing import Any

import jax

from plasticity_jax import target
from plasticity_jax.models import products
from plasticity_jax.parallel.memory import Footprint, footprint

Tree = Any

# What XLA puts into CUDA graphs: its default leaves out convolutions and loops, so that the host starts each
# convolution and waits for the device before each step.
IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONVOLUTION,WHILE,CONDITIONAL"


class Program:
    """A compiled function, the seconds that compiling it took, and the bytes it needs (by `loop` for one run).

    `compiled` is jax's own record of it, as for its text.
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
    **shardings: Any,
) -> Program:
    """Compile `fn` for `args`, given as arrays or their shapes.

    `donate` gives away the buffers of the first argument; `once` is for what runs too seldom to be optimised;
    without `threads` a CPU device computes on one.  `quickly` is for large programs that run a few times: on a CPU all
    but their products, which are a library's, is not optimised.  `shardings` are those of `jax.jit`.
    """
    start = time.perf_counter()
    where = shardings or target.shardings()
    given = (0,) if donate else ()
    jitted = jax.jit(fn, donate_argnums=given, compiler_options=options(once, threads, quickly), **where)
    call = jitted.lower(*args).compile()
    return Program(call, time.perf_counter() - start, footprint(call), call)


def options(once: bool = False, threads: bool = True, quickly: bool = False) -> dict[str, Any]:
    """XLA's options for the target's backend; what the variable XLA_FLAGS names on a GPU is left to it."""
    settings: dict[str, Any] = {}
    if target.backend() == "cpu":
        # XLA's default CPU preset fuses the normalisation into the weight gradients and computes it again and again;
        # and it takes seconds to optimise a draw of random numbers.
        settings = (
            {"xla_backend_optimization_level": 1} if once else {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
        )
        if quickly:
            settings["xla_backend_optimization_level"] = 0
        if not threads:
            settings["xla_cpu_multi_thread_eigen"] = False
    if target.backend() == "gpu":
        settings = {"xla_gpu_enable_command_buffer": IN_GRAPHS}
        if products.are_together():
            # The products are cuBLAS's: Triton's would each be two kernels where XLA splits a long sum.
            settings["xla_gpu_enable_triton_gemm"] = False
        named = {flag.partition("=")[0] for flag in os.environ.get("XLA_FLAGS", "").split()}
        settings = {name: value for name, value in settings.items() if f"--{name}" not in named}
    return settings
