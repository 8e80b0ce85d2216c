"""Several processes that train one study: how they find each other, agree, share results and end together.

All of them walk the same plan in step.  The first one writes every file and makes every decision that a clock, a
signal or a disk has a part in; here the others hear of it, by jax's coordination service: the devices have no part in
it, so nothing waits for what they were given to do.  A process that is alone talks to nobody.

Processes find each other by `jax.distributed`: started by `srun` in a SLURM job they do by themselves, elsewhere by the
environment variables JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
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
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")  # what jax looks at
WEEK = 7 * 24 * 3600 * 1000  # milliseconds for which processes wait for each other, while none is lost
SILENCE = 60  # seconds without a sign of life after which a process counts as lost

_by_itself = False
_exchanges = itertools.count()  # every process counts alike


def join(ask: bool = False, patience: float = 300.0) -> None:
    """Meet the other processes, if the environment says that there are any; before jax computes anything.

    Says at once whom it waits for.  This process ends with status 1 and one line if they do not all come in time.

    Args:
      ask: for clusters that only jax can ask for the others: TPU pods, Open MPI, Kubernetes.
      patience: seconds to wait for them.

    Raises:
      LabError: they cannot be met.
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
            raise LabError(f"{TASKS}={os.environ[TASKS]!r} is no whole number; unset it to train in this process alone")
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
            # Behind our own end of waiting, for jax's is a crash with a stack trace.
            _jax().distributed.initialize(**given, **silence, initialization_timeout=int(patience) + SILENCE)
    except Exception as error:  # all kinds, from Python and C++
        line = str(error).partition("\n")[0]
        raise LabError(f"the processes of this study cannot find each other ({line}); start all of them") from error


@contextlib.contextmanager
def _waiting(line: str, patience: float) -> Iterator[None]:
    """Say what is waited for, and end the process if what is done inside takes longer than `patience` seconds."""

    def give_up() -> None:
        print(f"error: waited {patience:.0f} s in vain; {line}", file=sys.stderr, flush=True)
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
    """The value of an environment variable; None if it is unset, empty or no whole number."""
    try:
        return int(os.environ.get(variable, ""))
    except ValueError:
        return None


def alone() -> bool:
    """Whether this process is the only one, or for now does something `once` for all."""
    return _by_itself or not _joined() or _jax().process_count() == 1


def first() -> bool:
    """Whether this is the process that writes."""
    return not _joined() or _jax().process_index() == 0


def agree(value: int) -> int:
    """The value of the first process, in all of them."""
    return value if alone() else _everywhere(value)[0]


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    return flag if alone() else any(_everywhere(flag))


def least(value: int) -> int:
    """The smallest value of all processes."""
    return value if alone() else min(_everywhere(value))


def once(act: Callable[[], T]) -> T:
    """What `act` returns in the first process, which alone does it; plain JSON, unless there is only one process.

    Raises:
      LabError: `act` raised it, in all processes.
    """
    if alone():
        return act()
    said: dict[str, Any] = {}
    if first():
        with _by_oneself():
            try:
                said = {"found": act()}
            except LabError as error:
                said = {"error": str(error), "kind": type(error).__name__}
    said = _everywhere(said)[0]
    if "error" in said:
        kinds = {kind.__name__: kind for kind in _kinds(LabError)}
        raise kinds[said["kind"]](said["error"]) from None
    return said["found"]


def in_turn(act: Callable[[], T]) -> T:
    """What `act` returns: the first process does it, then the others, which may find what the first one made."""
    made: list[T] = []
    once(lambda: made.append(act()))
    return made[0] if made else act()


def fetch(tree: Any) -> Any:
    """The arrays of a tree in numpy, also those of which this process holds only a part; every process must ask."""
    return _jax().device_get(tree) if alone() else _jax().tree.map(_whole, tree)


def fetch_few(tree: Any) -> Any:
    """`fetch` for few integers or bools, leaves [R], from a program that may not be the last one on the devices."""
    if alone():
        return fetch(tree)
    leaves, structure = _jax().tree.flatten(tree)
    own = [
        [[part.index[0].start or 0, np.asarray(part.data).tolist()] for part in x.addressable_shards] for x in leaves
    ]
    told = _everywhere(own)
    whole = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    for process in told:
        for leaf, parts in zip(whole, process, strict=True):
            for start, values in parts:
                leaf[start : start + len(values)] = values
    return structure.unflatten(whole)


def leave(status: int) -> int:
    """End this process at once if it is not alone, else return the status to end with.

    For errors that the other processes may not know of: the usual way out would wait for them, and they for this one.
    When they miss it, they end too.
    """
    if not alone():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let errors out of here, but end this process with status 1 where others train with it (see `leave`)."""
    try:
        yield
    except Exception as error:
        if not alone() and not isinstance(error, Preempted):  # all stop together
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
    """What all processes say, plain JSON, in their order."""
    import orbax.checkpoint as ocp  # late: it takes a second to load

    client, number, own = ocp.multihost.get_jax_distributed_client(), next(_exchanges), _jax().process_index()
    client.key_value_set(f"{_exchange(number)}/{own}", strict_json.dumps(said))
    client.wait_at_barrier(_exchange(number), WEEK)
    # All that are here have read what was said last.
    client.key_value_delete(f"{_exchange(number - 1)}/{own}")
    found = {int(name.rpartition("/")[2]): text for name, text in client.key_value_dir_get(_exchange(number))}
    return [strict_json.loads(found[index]) for index in range(_jax().process_count())]


def _exchange(number: int) -> str:
    return f"plasticity_jax/exchange/{number}"


def _jax() -> Any:
    import jax  # late: most commands that ask whether they are alone need nothing else of it

    return jax


def _joined() -> bool:
    return "jax" in sys.modules and _jax().distributed.is_initialized()


@contextlib.contextmanager
def _by_oneself() -> Iterator[None]:
    """Inside, the first process asks the others nothing: they wait."""
    global _by_itself
    _by_itself = True
    try:
        yield
    finally:
        _by_itself = False


def _kinds(kind: type[LabError]) -> list[type[LabError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
