"""Several processes that train one study: joining, agreeing on decisions, sharing results, and ending together.

All processes execute the same plan in the same order.  The first one writes all files and makes every decision that
depends on a clock, a signal or a disk.  The functions here send such decisions to the others by jax's coordination
service, so they do not wait for work queued on devices.  With a single process nothing is sent.

Processes connect by `jax.distributed`: automatically under `srun` in a SLURM job, elsewhere by the environment
variables JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import contextlib
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from plasticity_jax import strict_json
from plasticity_jax.errors import LabError, Preempted

T = TypeVar("T")
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
TASKS = "SLURM_STEP_NUM_TASKS"
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")  # those that jax reads
WEEK = 7 * 24 * 3600 * 1000  # milliseconds that processes wait for each other as long as none is lost
SILENCE = 60  # seconds without a heartbeat after which a process counts as lost

_by_itself = False
_exchanges = itertools.count()  # equal in all processes


def join(ask: bool = False, patience: float = 300.0) -> None:
    """Connects to the other processes, if the environment announces any; call before jax computes anything.

    Prints what it waits for.  If not all processes connect in time, this one exits with status 1 and a line.

    Args:
      ask: whether to let jax find the others: TPU pods, Open MPI, Kubernetes.
      patience: seconds to wait.

    Raises:
      LabError: the connection fails.
    """
    if _joined():
        return
    given: dict[str, Any] = {}
    waits = "waiting for the other processes of this study (--distributed)"
    if os.environ.get(ADDRESS):
        count, index = _whole_number(COUNT), _whole_number(INDEX)
        if count is None or index is None:
            raise LabError(f"{ADDRESS} is set, so {COUNT} and {INDEX} must be too, as whole numbers")
        given = {"num_processes": count, "process_id": index}
        waits = (
            f"this is process {index} of {count} ({COUNT}), waiting for the others at {os.environ[ADDRESS]}; if there "
            f"are none, unset {ADDRESS}"
        )
    elif not ask:
        if os.environ.get(TASKS, "").strip() and _whole_number(TASKS) is None:
            raise LabError(f"{TASKS}={os.environ[TASKS]!r} is not an integer; unset it to train in this process alone")
        count = _whole_number(TASKS)
        if count is None or count <= 1:
            return
        unset = [name for name in SLURM if not os.environ.get(name)]
        if unset:
            raise LabError(f"{TASKS}={count}, but {unset[0]} is not set; unset {TASKS} to train in this process alone")
        waits = (
            f"this is process {os.environ['SLURM_PROCID']} of {count} ({TASKS}), waiting for the others; if there are "
            f"none, as in an interactive shell, stop and put {TASKS}=1 before the command"
        )
    try:
        with _waiting(waits, patience):
            silence = {"heartbeat_timeout_seconds": SILENCE, "shutdown_timeout_seconds": SILENCE}
            # Longer than our own timeout, since jax's timeout crashes with a stack trace.
            _jax().distributed.initialize(**given, **silence, initialization_timeout=int(patience) + SILENCE)
    except Exception as error:  # all kinds, from Python and C++
        line = str(error).partition("\n")[0]
        raise LabError(f"the processes of this study cannot connect ({line}); start all of them") from error


@contextlib.contextmanager
def _waiting(line: str, patience: float) -> Iterator[None]:
    """Context that prints `line`, and ends the process if its body takes longer than `patience` seconds."""

    def give_up() -> None:
        print(f"error: timed out after {patience:.0f} s; {line}", file=sys.stderr, flush=True)
        os._exit(1)

    print(f"note: {line}", file=sys.stderr, flush=True)
    timer = threading.Timer(patience, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _whole_number(variable: str) -> int | None:
    """The value of an environment variable; None if it is unset, empty or not an integer."""
    try:
        return int(os.environ.get(variable, ""))
    except ValueError:
        return None


def alone() -> bool:
    """Whether this process is the only one, or executes the body of `once`."""
    return _by_itself or not _joined() or _jax().process_count() == 1


def first() -> bool:
    """Whether this is the process that writes files."""
    return not _joined() or _jax().process_index() == 0


def agree(value: int) -> int:
    """The value of the first process, in all of them."""
    return value if alone() else _everywhere(value)[0]


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    return flag if alone() else any(_everywhere(flag))


def least(value: int) -> int:
    """The smallest value of all processes."""
    return value if alone() else min(_everywhere(value))


def once(act: Callable[[], T]) -> T:
    """Calls `act` in the first process only, and returns its result in all; JSON values if there are several processes.

    Raises:
      LabError: in all processes, if `act` raised it.
    """
    if alone():
        return act()
    said: dict[str, Any] = {}
    if first():
        with _by_oneself():
            try:
                said = {"result": act()}
            except LabError as error:
                said = {"error": str(error), "kind": type(error).__name__}
    said = _everywhere(said)[0]
    if "error" in said:
        kinds = {kind.__name__: kind for kind in _kinds(LabError)}
        raise kinds[said["kind"]](said["error"]) from None
    return said["result"]


def in_turn(act: Callable[[], T]) -> T:
    """Returns `act()`, called in the first process and then in the others, which may reuse files that it made."""
    made: list[T] = []
    once(lambda: made.append(act()))
    return made[0] if made else act()


def fetch(tree: Any) -> Any:
    """The arrays of a tree in numpy, including those distributed over processes; every process must call it."""
    return _jax().device_get(tree) if alone() else _jax().tree.map(_whole, tree)


def fetch_few(tree: Any) -> Any:
    """`fetch` for integers or bools, leaves [R], that does not wait for programs queued later on the devices."""
    if alone():
        return fetch(tree)
    leaves, structure = _jax().tree.flatten(tree)
    held = [
        [[part.index[0].start or 0, np.asarray(part.data).tolist()] for part in x.addressable_shards] for x in leaves
    ]
    told = _everywhere(held)
    whole = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    for process in told:
        for leaf, parts in zip(whole, process, strict=True):
            for start, values in parts:
                leaf[start : start + len(values)] = values
    return structure.unflatten(whole)


def leave(status: int) -> int:
    """Exits at once with `status` if there are other processes, else returns `status`.

    For errors that the other processes may not have: a normal exit would wait for them, and they for this process.
    They end when they no longer receive its heartbeat.
    """
    if not alone():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Context that ends this process with status 1 on an error if there are others (see `leave`), else re-raises it."""
    try:
        yield
    except Exception as error:
        if not alone() and not isinstance(error, Preempted):  # which all processes raise
            if isinstance(error, LabError):
                print(f"error: {error}", file=sys.stderr)
            else:
                traceback.print_exception(error)
            leave(1)
        raise


def _whole(leaf: Any) -> Any:
    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return _jax().device_get(leaf)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(leaf, tiled=True)


def _everywhere(said: Any) -> list[Any]:
    """The values `said` by all processes (JSON), in the order of their index."""
    import orbax.checkpoint as ocp  # late: it takes a second to load

    client, number, index = ocp.multihost.get_jax_distributed_client(), next(_exchanges), _jax().process_index()
    client.key_value_set(f"{_exchange(number)}/{index}", strict_json.dumps(said))
    client.wait_at_barrier(_exchange(number), WEEK)
    # All processes at this barrier have read the values of the exchange before.
    client.key_value_delete(f"{_exchange(number - 1)}/{index}")
    texts = {int(name.rpartition("/")[2]): text for name, text in client.key_value_dir_get(_exchange(number))}
    return [strict_json.loads(texts[process]) for process in range(_jax().process_count())]


def _exchange(number: int) -> str:
    return f"plasticity_jax/exchange/{number}"


def _jax() -> Any:
    import jax  # late: most commands that call `alone` do not need jax

    return jax


def _joined() -> bool:
    return "jax" in sys.modules and _jax().distributed.is_initialized()


@contextlib.contextmanager
def _by_oneself() -> Iterator[None]:
    """Context in which the first process does not communicate, since the others wait for it."""
    global _by_itself
    _by_itself = True
    try:
        yield
    finally:
        _by_itself = False


def _kinds(kind: type[LabError]) -> list[type[LabError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
