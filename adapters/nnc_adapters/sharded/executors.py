"""Where tasks run: processes of this machine, or the workers of Dask or Ray. Each executor ends with its block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, Final

from nnc_core.errors import MissingDependencyError

__all__ = ["dask_executor", "process_executor", "ray_executor"]

_RETRIES: Final = {"dask": 2, "ray": 3}
"""How often a task starts anew whose worker has died."""


@contextmanager
def process_executor(workers: int) -> Iterator[Executor]:
    """So many processes of this machine; ValueError below 1."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


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
