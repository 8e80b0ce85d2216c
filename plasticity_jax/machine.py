"""The machine that this process runs on."""

import os

import threadpoolctl


def threads() -> int:
    """CPU cores that this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_lapack_thread() -> None:
    """Let each call of LAPACK, which takes the ranks of features, work with a single thread from now on.

    Its threads wait by spinning: for matrices this small they gain nothing, and beside other work on the same cores
    they made an evaluation take a hundred times as long.  OPENBLAS_NUM_THREADS, if set, is left alone.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the library that jax loads when it first needs one
        threadpoolctl.threadpool_limits(1, "blas")  # for those that are loaded
