"""Imports and starts jax, counts CPU cores, and limits the threads of linear algebra."""

import contextlib
import os

import threadpoolctl

from plasticity_jax.errors import LabError


def import_jax() -> None:
    """Imports jax, which reads its settings from the environment when imported.

    Raises:
      LabError: a setting is invalid, or jax is not installed correctly.
    """
    try:
        import jax  # noqa: F401
    except Exception as error:  # several kinds, and from its dependencies any
        raise LabError(f"jax cannot be imported: {_first_line(error)}") from error


def start_jax() -> None:
    """Initialises the devices of jax.

    Raises:
      LabError: the platform in JAX_PLATFORMS is not available, or does not start.
    """
    from plasticity_jax import target

    try:
        target.devices()
    except (RuntimeError, AssertionError) as error:  # an AssertionError without text if no platform has a device
        asked = f" (JAX_PLATFORMS={os.environ['JAX_PLATFORMS']})" if os.environ.get("JAX_PLATFORMS") else ""
        why = _first_line(error) or "there is no such device, or jax is installed without support for it"
        advice = "name another platform in JAX_PLATFORMS, or unset it to use what is available"
        raise LabError(f"jax finds no device{asked}: {why}; {advice}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def threads() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_all_cores() -> None:
    """Makes each CPU core a device, for the strategies `run_axis.CORES`; no effect once jax has computed something.

    The environment variable JAX_NUM_CPU_DEVICES sets another number.
    """
    import jax

    asked = jax.config.values["jax_num_cpu_devices"] > 0 or "host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if not asked:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", threads())


def use_one_lapack_thread() -> None:
    """Limits LAPACK, which computes ranks of features, to a single thread, unless OPENBLAS_NUM_THREADS is set.

    LAPACK's threads busy-wait: they are no faster for such small matrices, and with other work on the same cores they
    made an evaluation a hundred times slower.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the library that jax loads on first use
        threadpoolctl.threadpool_limits(1, "blas")  # for libraries already loaded
