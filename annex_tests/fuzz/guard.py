"""A folder in which hostile files are read: nothing outside it may be touched, and nothing may be left behind in it."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnc_core.errors import NncError

ROOT = Path(__file__).resolve().parents[2]

_READABLE = tuple({str(ROOT), *map(os.path.realpath, (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()))})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.chmod"), 1),
    **dict.fromkeys(("os.rename", "os.link"), 2),
}
"""Events that change paths, which are so many of their first arguments; the last ones are open folders, or -1."""
_NEVER = (
    "os.symlink",
    "os.truncate",
    "os.system",
    "os.exec",
    "os.startfile",
    "pickle.find_class",
    "socket.",
    "subprocess.Popen",
    "os.posix_spawn",
)


class TrespassError(Exception):
    """Something happened that no file may make happen."""


class AbsentError(Exception):
    """The damage is that there is nothing to read."""


class Box:
    """Folders for the hostile files and for what is made of them; ``ending`` is the first error on purpose, if any."""

    def __init__(self, folder: Path) -> None:
        self.inside, self._outside, self.temporary = (folder / name for name in ("in", "out", "tmp"))
        for path in (self.inside, self._outside, self.temporary):
            path.mkdir()
        self.ending = "read"
        self._files: Mapping[str, bytes] = {}
        self._targets: list[str] = []

    def put(self, files: Mapping[str, bytes], name: str) -> Path:
        """Store the hostile files; gives the path called ``name`` among them, or `AbsentError`.

        There is none either where the names cannot be those of files beside each other.
        """
        stored: dict[str, bytes] = {}
        self._files = stored
        for each, data in files.items():
            path = self.inside / each
            if not Path(os.path.abspath(path)).is_relative_to(self.inside):
                raise AbsentError
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except OSError:  # no file can have this name
                raise AbsentError from None
            stored[each] = data
        if not os.path.lexists(self.inside / name):
            raise AbsentError
        return self.inside / name

    def target(self, name: str) -> Path:
        """A path to write to; names of files that are written beside begin with the same word."""
        self._targets.append(name.split(".")[0])
        return self._outside / name

    @contextmanager
    def step(self, target: Path | None = None) -> Iterator[None]:
        """What an error on purpose may end; ``target`` is not there then."""
        try:
            yield
        except NncError as error:
            if not str(error):
                raise TrespassError("an error without a message") from error
            if target is not None and os.path.lexists(target):
                raise TrespassError(f"{target.name} is there in spite of an error") from error
            if self.ending == "read":
                self.ending = type(error).__name__

    def check(self) -> None:
        """`TrespassError` where other files are there than those that were put here or asked for."""
        found = {p.relative_to(self.inside).as_posix(): p.read_bytes() for p in self.inside.rglob("*") if p.is_file()}
        if found != {os.path.normpath(name): data for name, data in self._files.items()}:
            raise TrespassError(f"the files that were read have changed: {sorted(found)}")
        strange = [p.name for p in self._outside.iterdir() if p.name.split(".")[0] not in self._targets]
        if strange or any(self.temporary.iterdir()):
            raise TrespassError(f"files are left behind: {strange}, {sorted(self.temporary.iterdir())}")


class _Watch:
    """Sees what the interpreter does, while a folder is guarded."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self._installed = False

    def start(self, folder: Path) -> None:
        self.folder, self.seen = str(folder), []
        if not self._installed:
            self._installed = True
            sys.addaudithook(self._hook)

    def stop(self) -> list[str]:
        self.folder = None
        return self.seen

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        reason = self._forbidden(event, arguments)
        if reason:
            self.seen.append(reason)  # the exception may be caught
            raise TrespassError(reason)

    def _forbidden(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            path, _, flags = arguments
            writing = flags & _WRITING
            # a relative one is below an open folder, which the event does not tell
            relative = not isinstance(path, int) and not os.path.isabs(path)
            allowed = (self.folder,) if writing else (self.folder, *_READABLE)
            return "" if relative and not writing else self._outside(event, [path], allowed)
        if event in _PATHS:
            count = _PATHS[event]
            return self._outside(event, map(_resolved, arguments[:count], arguments[-count:]), (self.folder,))
        if event.startswith(_NEVER):
            return f"{event} {arguments!r}"
        return ""

    def _outside(self, event: str, paths: Any, allowed: tuple[str | None, ...]) -> str:
        for path in paths:
            if isinstance(path, int):
                continue
            real = os.path.realpath(os.fsdecode(path))
            if not any(real == root or real.startswith(f"{root}{os.sep}") for root in allowed):
                return f"{event} of {real}"
        return ""


def _resolved(path: Any, folder: Any) -> Any:
    """``path``, below the open ``folder`` if there is one."""
    if not isinstance(folder, int) or folder < 0:
        return path
    place = f"/proc/self/fd/{folder}"
    # where nothing tells which folder that is, it passes as an open file does
    return os.path.join(os.readlink(place), os.fsdecode(path)) if os.path.lexists(place) else folder


_WATCH = _Watch()


@contextmanager
def guarded() -> Iterator[Box]:
    """A new box; `TrespassError` for whatever happens outside it, and for what is left behind in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        box = Box(folder)
        earlier, tempfile.tempdir = tempfile.tempdir, str(box.temporary)
        _WATCH.start(folder)
        try:
            yield box
        finally:
            seen = _WATCH.stop()
            tempfile.tempdir = earlier
        if seen:
            raise TrespassError("; ".join(seen))
        box.check()
