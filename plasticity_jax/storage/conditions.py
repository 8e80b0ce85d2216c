"""Settings of jax that affect a study's bits besides its config: pinned, refused or recorded.

Environment variables set jax's options (JAX_ENABLE_X64=1), and a program that calls the lab may set them too.  Options
that would change the meaning of a seed are pinned while the lab runs; the others are recorded at the first start in a
directory, and compared on resume (`environment`).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax

from plasticity_jax.errors import LabError

IMPLEMENTATION = "threefry2x32"
PINNED = {  # option of jax -> its value inside `pinned`
    "jax_default_prng_impl": IMPLEMENTATION,
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}
# Settings that cannot be pinned for one thread; other values are refused.
REFUSED = {"jax_random_seed_offset": 0, "jax_high_dynamic_range_gumbel": False, "jax_disable_jit": False}
# Settings of the compiler, which may change the last bits; recorded.
COMPILER = (
    "jax_allow_f16_reductions",
    "jax_compiler_enable_remat_pass",
    "jax_disable_most_optimizations",
    "jax_enable_pgle",
    "jax_exec_time_optimization_effort",
    "jax_optimization_level",
    "jax_softmax_custom_jvp",
    "jax_threefry_gpu_kernel_lowering",
    "jax_use_shardy_partitioner",
)
FLAGS = ("LIBTPU_INIT_ARGS", "CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_USE_FRONTEND")  # recorded in addition to XLA_FLAGS
PRECISION = "jax_default_matmul_precision"
TF32 = "NVIDIA_TF32_OVERRIDE"  # overrides jax's precision of matrix products on NVIDIA GPUs


@contextlib.contextmanager
def pinned(precision: str = "default") -> Iterator[None]:
    """Context or decorator that fixes jax's random numbers and dtype rules, whatever the environment says.

    Args:
      precision: of matrix products, a study's `matmul_precision`; `default` keeps jax's setting.

    Raises:
      LabError: jax has a switch on that cannot be undone here.
    """
    for name, value in REFUSED.items():
        if _value(name) != value:
            raise LabError(
                f"{name} is {_value(name)}, which changes results; unset {name.upper()}, so that it is {value}"
            )
    with (
        jax.default_prng_impl(PINNED["jax_default_prng_impl"]),
        jax.threefry_partitionable(PINNED["jax_threefry_partitionable"]),
        jax.enable_x64(PINNED["jax_enable_x64"]),
        jax.numpy_dtype_promotion(PINNED["jax_numpy_dtype_promotion"]),
        jax.numpy_rank_promotion(PINNED["jax_numpy_rank_promotion"]),
        jax.default_matmul_precision(_value(PRECISION) if precision == "default" else precision),
    ):
        yield


def recorded() -> dict[str, Any]:
    """The current settings, as plain JSON values."""
    config = {name: _value(name) for name in (*PINNED, *COMPILER)}
    tf32 = os.environ.get(TF32, "")
    return {
        "random": {
            "implementation": config["jax_default_prng_impl"],
            "partitionable": config["jax_threefry_partitionable"],
        },
        "x64": config["jax_enable_x64"],
        "matmul_precision": (_value(PRECISION) or "default") + (f", {TF32}={tf32}" if tf32 else ""),
        "compiler": {name: _plain(config[name]) for name in COMPILER},
        "flags": {name: os.environ.get(name, "") for name in FLAGS},
    }


def _value(name: str) -> Any:
    """The value of a setting in this thread; some are global, and some are missing in older versions of jax."""
    return getattr(jax.config, name, jax.config.values.get(name))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else str(value)
