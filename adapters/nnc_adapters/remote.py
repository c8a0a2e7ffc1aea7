"""Files behind URLs that fsspec knows (``s3://bucket/model.onnx``, ``memory://model.nnr``), fetched and stored whole.

``file://`` is a path like others. All else is worked on in a temporary folder of this machine.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from nnc_core.errors import MissingDependencyError, ModelError, NncError
from nnc_core.lazy import LazyModule

if TYPE_CHECKING:
    import shutil
    import tempfile
    from inspect import BoundArguments
else:
    shutil, tempfile = LazyModule("shutil"), LazyModule("tempfile")

__all__ = ["Url", "fetched", "file_system", "is_url", "located", "reaching", "stored"]

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Url(str):
    """The address of a file or folder that fsspec reaches."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.rstrip("/").rpartition("/")[2]

    def is_dir(self) -> bool:
        """Not a folder of this machine."""
        return False

    def is_file(self) -> bool:
        """Not a file of this machine."""
        return False


def is_url(place: object) -> bool:
    """Whether a place is given by a URL that is not one of a file of this machine."""
    return isinstance(place, str) and isinstance(located(place), Url)


def located(place: str) -> Path | Url:
    """A path, or the address of something elsewhere."""
    if not _SCHEME.match(place):
        return Path(place)
    if place.lower().startswith("file://"):
        from urllib.parse import unquote, urlsplit

        return Path(unquote(urlsplit(place).path))
    return Url(place)


def file_system(url: str) -> tuple[Any, str]:
    """What reaches a URL, and the path there; needs the package fsspec, and for many places another one.

    `ModelError` for a kind of URL that is not known, `MissingDependencyError` without a package.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingDependencyError("fsspec", "remote", "what is behind a URL") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(str(error.name or error), "", url) from error
    except ValueError as error:
        raise ModelError(f"cannot be reached: {error}", file=url) from error
    return system, path


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """An `OSError` for whatever goes wrong at a place."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except (NncError, FileExistsError):
        raise
    except Exception as error:  # each kind of place has errors of its own
        raise OSError(f"{url}: {error}") from error


@contextmanager
def fetched(place: str | Path) -> Iterator[Path]:
    """A path itself; of a URL, a copy of the file or folder in a temporary folder. Errors name the URL."""
    if not is_url(place):
        yield Path(located(str(place)))
        return
    url = Url(place)
    system, path = file_system(url)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, url.name or "model")
        with _asking(url):
            if system.isdir(path):
                copy.mkdir()  # so that what is in the folder comes into it
                system.get(path.rstrip("/") + "/", f"{copy}/", recursive=True)
            else:
                system.get_file(path, str(copy))
        try:
            yield copy
        except NncError as error:
            if error.file and error.file.startswith(str(copy)):
                error.file = url + error.file[len(str(copy)) :]
            raise


@contextmanager
def stored(place: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A path itself; of a URL, a path in a temporary folder from where a file or folder goes there in the end.

    A file appears complete or not at all, where the place can do that, as object stores can. Of a folder the index
    comes last; if something fails before, what was stored is removed. `FileExistsError` where there is something,
    unless ``force``.
    """
    if not is_url(place):
        yield Path(located(str(place)))
        return
    url = Url(place)
    system, path = file_system(url)
    with _asking(url):
        if not force and system.exists(path):
            raise FileExistsError(f"{url} exists; -f replaces it (in Python: force=True)")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, url.name or "model")
        yield whole
        with _asking(url):
            if whole.is_dir():
                _store_folder(system, whole, path)
            else:
                _store(system, whole, path)


def _store(system: Any, source: Path, path: str) -> None:
    with source.open("rb") as stream, system.transaction, system.open(path, "wb") as target:
        shutil.copyfileobj(stream, target, 1 << 24)


def _store_folder(system: Any, source: Path, path: str) -> None:
    from nnc_adapters.sharded.names import INDEX

    before = set(system.find(path)) if system.exists(path) else set()
    files = sorted(file for file in source.rglob("*") if file.is_file())
    files.sort(key=lambda file: file.name == INDEX)
    done = []
    try:
        for file in files:
            there = f"{path.rstrip('/')}/{file.relative_to(source).as_posix()}"
            system.makedirs(there.rpartition("/")[0], exist_ok=True)
            done.append(there)
            _store(system, file, there)
    except BaseException:
        for there in filter(system.exists, done):
            system.rm_file(there)
        raise
    for there in before - set(done):
        system.rm_file(there)


def reaching(
    inputs: Iterable[str], output: str = ""
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Let a function take URLs for the paths that are its ``inputs`` and its ``output``; its report names the URL."""

    def decorated(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @wraps(function)
        def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            if not any(isinstance(each, str) and _SCHEME.match(each) for each in (*args, *kwargs.values())):
                return function(*args, **kwargs)
            from inspect import signature

            call = signature(function).bind(*args, **kwargs)
            return _with_places(call, function, [*inputs], output)

        return run

    return decorated


def _with_places(call: BoundArguments, function: Callable[..., _Result], inputs: list[str], output: str) -> _Result:
    from nnc_adapters.reports import DecompressReport

    given = call.arguments
    if output and given.get(output) is None and given.get("folder") is None and is_url(given[inputs[0]]):
        raise ModelError("says nothing about where the output belongs; name it", file=str(given[inputs[0]]))
    with ExitStack() as stack:
        for name in inputs:
            if isinstance(given.get(name), str):
                given[name] = stack.enter_context(fetched(given[name]))
        if not output or not isinstance(place := given.get(output), str):
            return function(*call.args, **call.kwargs)
        given[output] = stack.enter_context(stored(place, force=given.get("force", False)))
        result = function(*call.args, **call.kwargs)
        return replace(result, target=place) if isinstance(result, DecompressReport) else result
