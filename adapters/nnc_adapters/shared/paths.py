"""Paths of the files of a model: names that cannot lead out of its folder, and what lies in a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from nnc_adapters.shared.files import walk
from nnc_adapters.shared.names import storable
from nnc_core.errors import ModelError

__all__ = ["files_below", "inside", "single"]


def inside(name: Any, *, punctuation: bool = False) -> str:
    """``name``, if it is a relative path with slashes that stays inside its folder on any system, else `ValueError`.

    With ``punctuation``, backslashes and colons are letters like others; where a backslash separates folders and a
    colon names a drive, nothing leads out through them either.
    """
    if not isinstance(name, str) or not _stays(name, punctuation):
        raise ValueError(f"{_short(name)} is not the path of a file inside its folder")
    if not storable(name):
        raise ValueError(f"{_short(name)} is too long for the path of a file, or cannot be written in UTF-8")
    return name


def _stays(name: str, punctuation: bool) -> bool:
    parts = name.split("/")
    outside = name.startswith(("/", "\\")) or name[1:2] == ":" or "\0" in name
    upwards = any(part in ("", ".", "..") or ".." in part.split("\\") for part in parts)
    return not (outside or upwards or (not punctuation and ("\\" in name or ":" in parts[0])))


def single(name: Any) -> str:
    """``name``, if it is that of a file in the same folder, else `ValueError`."""
    if not isinstance(name, str) or "/" in name:
        raise ValueError(f"{_short(name)} is not the name of a file in the folder")
    return inside(name)


def _short(name: Any) -> str:
    text = repr(name)
    return text if len(text) < 80 else f"{text[:80]}..."


def files_below(root: Path, markers: Iterable[Path] = (), skipped: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """The files below ``root`` and their paths there, with slashes, in a fixed order; without folders to be skipped.

    Links are followed as long as they lead below ``root``, or to where one of the ``markers`` really lies, as all files
    of a model do in the cache of a hub. `ModelError` for links to elsewhere or in a circle, and for devices.
    """
    homes = tuple({root.resolve(), *(marker.resolve().parent for marker in markers)})
    yield from _below(root, "", homes, frozenset(skipped), ())


def _below(
    folder: Path, before: str, homes: tuple[Path, ...], skipped: frozenset[str], around: tuple[Path, ...]
) -> Iterator[tuple[str, Path]]:
    if before and not storable(before.rstrip("/")):
        raise ModelError(f"{before[:80]!r}... is too deep a folder, or has no name in UTF-8")
    real = folder.resolve()
    if real in around:
        raise ModelError("is a link to a folder that it lies in", file=str(folder))
    _, folders, files = next(walk(folder))
    for name in sorted(files):
        path = folder / name
        if not path.is_file():
            raise ModelError("is a link to nothing or a device, not a file of the model", file=str(path))
        yield before + name, _checked(path, homes)
    for name in sorted(set(folders) - skipped):
        yield from _below(_checked(folder / name, homes), f"{before}{name}/", homes, skipped, (*around, real))


def _checked(path: Path, homes: tuple[Path, ...]) -> Path:
    if path.is_symlink() and not any(path.resolve().is_relative_to(home) for home in homes):
        how = "compress a copy without links, as cp -RL makes one"
        raise ModelError(f"is a link out of the folder; {how}", file=str(path))
    return path
