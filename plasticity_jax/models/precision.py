"""The dtype that a network computes in."""

from plasticity_jax import target

DTYPES = ("auto", "float32", "bfloat16")


def compute_dtype(dtype: str) -> str:
    """Resolves `auto`: bfloat16 on accelerators, where it is fast, float32 on CPU, where bfloat16 is slow.

    Parameters, statistics, their updates and the head are always float32.
    """
    if dtype != "auto":
        return dtype
    return "float32" if target.backend() == "cpu" else "bfloat16"
