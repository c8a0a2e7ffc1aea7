"""Folders with a file for each bitstream."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from nnc_adapters.containers import names
from nnc_adapters.containers.base import Items, Source
from nnc_adapters.shared.files import replacing_folder
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Folder"]

_SUFFIX = ".nnr"
_LONGEST = 200  # characters; file systems have 255 bytes
_NUMBERED = re.compile(r"(\d{1,9})-(.*)", re.DOTALL)


class Folder:
    """Files are called ``<number>-<name>.nnr``: the number keeps their order, and apart what a file system takes for
    the same name. Files without a number come last, in the order of their names.
    """

    name: str = "folder"
    suffixes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def sniff(self, path: Path) -> bool:
        """Whether it is a folder of bitstreams and nothing else."""
        try:
            files = list(path.iterdir())
            return bool(files) and all(_is_member(file) and _begins(file) for file in files)
        except (OSError, ModelError):
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The files with the suffix ``.nnr``; `ModelError` for a link."""
        return Items(path, _found(path), lambda: None, limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the files into a new folder; `ModelError` for a name that no file can have."""
        digits = len(str(max(0, len(items) - 1)))
        with replacing_folder(path, force=force) as folder:
            for number, key in enumerate(items):
                name = names.for_file(key)
                if len(name) > _LONGEST:
                    raise ModelError("has a name that is too long for a file", tensor=key)
                Path(folder, f"{number:0{digits}}-{name}{_SUFFIX}").write_bytes(items[key])


def _is_member(file: Path) -> bool:
    return file.name.endswith(_SUFFIX) and file.is_file()


def _begins(file: Path) -> bool:
    with Source(file) as source:
        return source.begins_bitstream(0, source.size)


def _found(path: Path) -> Iterator[tuple[str, Callable[[], Buffer]]]:
    for _, name, file in sorted(_place(file) for file in path.iterdir() if _is_member(file)):
        if file.is_symlink():
            raise ModelError("is a link", file=str(file))
        yield _key(file, name), partial(_read, file)


def _place(file: Path) -> tuple[float, str, Path]:
    stem = file.name.removesuffix(_SUFFIX)
    found = _NUMBERED.fullmatch(stem)
    return (int(found[1]), found[2], file) if found else (float("inf"), stem, file)


def _key(file: Path, name: str) -> str:
    try:
        return names.unquoted(name)
    except ValueError as error:
        raise ModelError(f"is not the name of a tensor: {error}", file=str(file)) from None


def _read(file: Path) -> bytes:
    with Source(file) as source:
        return source.read(0, source.size)
