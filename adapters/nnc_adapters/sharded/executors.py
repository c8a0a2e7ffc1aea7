"""Where tasks run: processes of this machine, or the workers of Dask or Ray. Each executor ends with its block."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Final

from nnc_adapters.shared.unfinished import undo_unfinished
from nnc_core.errors import MissingDependencyError

__all__ = ["dask_executor", "process_executor", "ray_executor"]

_RETRIES: Final = {"dask": 2, "ray": 3}
"""How often a task starts anew whose worker has died."""


@contextmanager
def process_executor(workers: int) -> Iterator[Executor]:
    """So many processes of this machine; ValueError below 1.

    They end when this process does, however that happens, and at once where a signal ends the block.
    """
    with _Processes(workers, mp_context=get_context("spawn"), initializer=_become_worker) as pool:
        try:
            yield pool
        except Exception:
            raise  # what others have begun is finished
        except BaseException:
            for process in pool._processes.values():
                process.terminate()
            raise


class _Processes(ProcessPoolExecutor):
    """Processes to which an interrupt from the keyboard does not come: their parent ends them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start ``fn`` in a process, which may be new."""
        with _blocked(signal.SIGINT):
            return super().submit(fn, *args, **kwargs)


@contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Let a signal wait for the end of the block; a process that is started in it never gets it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked
    signal.signal(signal.SIGTERM, lambda *_: _end_worker())
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        _end_worker()


def _end_worker() -> None:
    undo_unfinished()
    os._exit(128 + signal.SIGTERM)


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The workers of Dask's scheduler at ``address``, such as ``tcp://host:8786``; needs the package distributed.

    What a worker was doing that died is done by another one. `ChildProcessError` where one task kills its workers again
    and again, `ConnectionError` where no scheduler answers.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise MissingDependencyError("distributed", "dask", "--dask") from None
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no scheduler of Dask answers at {address}: {error}") from error
    with client:
        try:
            yield client.get_executor(pure=False, retries=_RETRIES["dask"])
        except KilledWorker as error:
            raise ChildProcessError(f"one file has ended all workers that tried it: {error}") from error


@contextmanager
def ray_executor(address: str) -> Iterator[Executor]:
    """The workers of a cluster of Ray: ``auto``, ``host:6379``, or ``local`` for one that is started; needs ray.

    A cluster that this process is connected to already is used, and stays. What a worker was doing that died is done by
    another one; `ChildProcessError` where that does not help, `ConnectionError` where there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "--ray") from None
    connected = ray.is_initialized()
    try:
        if not connected:
            ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"there is no cluster of Ray at {address}: {error}") from error
    try:
        yield _RayExecutor(ray)
    finally:
        if not connected:
            ray.shutdown()


class _RayExecutor(Executor):
    """Tasks of Ray as futures."""

    def __init__(self, ray: Any) -> None:
        self._died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        self._run = ray.remote(max_retries=_RETRIES["ray"])(_outcome)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start ``fn`` somewhere."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._run.remote(fn, args, kwargs).future().add_done_callback(partial(self._settle, future))
        return future

    def _settle(self, future: Future[Any], done: Future[Any]) -> None:
        try:
            result, error = done.result()
        except BaseException as failure:
            result, error = None, failure
        if isinstance(error, self._died):
            error = ChildProcessError(f"one file has ended all workers that tried it: {error}")
        future.set_exception(error) if error is not None else future.set_result(result)


def _outcome(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Exception | None]:
    """What a function returns or raises: Ray would wrap an error."""
    try:
        return fn(*args, **kwargs), None
    except Exception as error:
        return None, error
