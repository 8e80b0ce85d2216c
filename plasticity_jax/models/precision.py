"""The type that a network computes in."""

from plasticity_jax import target

DTYPES = ("auto", "float32", "bfloat16")


def compute_dtype(dtype: str) -> str:
    """The type that `auto` means: bfloat16 on accelerators, whose fast units want it, float32 on CPU, where it is slow.

    Parameters, statistics, their updates and the head are float32 either way.
    """
    if dtype != "auto":
        return dtype
    return "float32" if target.backend() == "cpu" else "bfloat16"
