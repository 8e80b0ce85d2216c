"""Compiles one function for the target's devices, with XLA's options for the backend."""

import functools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import jax

from plasticity_jax import target
from plasticity_jax.models import products
from plasticity_jax.parallel import compilation_cache
from plasticity_jax.parallel.memory import Footprint, footprint

Tree = Any

# Operations that XLA puts into CUDA graphs.  The default excludes convolutions and loops, so the host would launch each
# convolution and synchronise before each step.
IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONVOLUTION,WHILE,CONDITIONAL"


class Program:
    """A compiled function, or one that another thread is compiling; its properties and calls wait for the result.

    compiling: returns the compiled function, and whether it was loaded from the compilation cache on disk.
    seconds: the time that callers spent on it: tracing, lowering, and compiling or waiting.
    loaded: whether it was loaded from the cache; False while it is being compiled.
    call: if given, called instead of the program; it calls the program once for each run.
    """

    def __init__(
        self,
        compiling: Callable[[], tuple[jax.stages.Compiled, bool]],
        seconds: float = 0.0,
        call: Callable[..., Tree] | None = None,
    ):
        self.compiling = compiling
        self.seconds = seconds
        self.call = call
        self.loaded = False

    @functools.cached_property
    def compiled(self) -> jax.stages.Compiled:
        """jax's compiled object, which has the program's text."""
        start = time.perf_counter()
        compiled, self.loaded = self.compiling()
        del self.compiling  # it may hold the text of the program
        self.seconds += time.perf_counter() - start
        return compiled

    @functools.cached_property
    def footprint(self) -> Footprint | None:
        """The memory of the program; with the strategy `loop`, for one run."""
        return footprint(self.compiled)

    def __call__(self, *args: Tree) -> Tree:
        return (self.call or self.compiled)(*args)


def compile_one(
    fn: Callable[..., Tree],
    *args: Tree,
    donate: bool = False,
    once: bool = False,
    threads: bool = True,
    quickly: bool = False,
    seldom: bool = False,
    pool: Executor | None = None,
    **shardings: Any,
) -> Program:
    """Compiles `fn` for `args`, given as arrays or shapes; with a `pool`, only lowers it and compiles it in the pool.

    Args:
      fn: the function.
      *args: arrays or shapes.
      donate: whether to donate the buffers of the first argument.
      once: for programs that run too rarely to be worth optimising.
      threads: whether a CPU device uses several threads.
      quickly: for large programs that run briefly: on CPU they are optimised little, but products use a library.
      seldom: for short programs that run about once per epoch: the TPU compiler spends little effort.
      pool: threads for compiling, which releases Python's global lock.
      **shardings: those of `jax.jit`.
    """
    start = time.perf_counter()
    where = shardings or target.shardings()
    given = (0,) if donate else ()
    jitted = jax.jit(fn, donate_argnums=given, compiler_options=options(once, threads, quickly, seldom), **where)
    lowered = jitted.lower(*args)
    seconds = time.perf_counter() - start
    if pool:
        later = pool.submit(_compile, lowered)
        # A program that no thread has begun is compiled by its first caller.
        return Program(lambda: _compile(lowered) if later.cancel() else later.result(), seconds)
    done = _compile(lowered)
    return Program(lambda: done, time.perf_counter() - start)


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, bool]:
    """The compiled program, and whether it was loaded from the cache."""
    with compilation_cache.counting(threading.get_ident()) as count:
        compiled = lowered.compile()
    return compiled, count.loaded > 0


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
            # Level 0 saves a third of the compile time of level 1, but the program then takes five times as long.
            settings["xla_backend_optimization_level"] = 1
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
