"""What a file is that is not what was expected, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from nnc_adapters.base import Adapter
from nnc_core.bitstream.parts import begins_bitstream

__all__ = ["instead_of_a_bitstream", "instead_of_a_model", "is_placeholder"]

# What is looked at in a folder, from the top, and how much of it is named.
_BELOW, _LOOKED_AT, _NAMED = ("*", "*/*", "*/*/*"), 256, 3
_LFS = b"version https://git-lfs.github.com/spec/"
_HEAD = 512

_ARCHIVES = {
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
}
_TAR, _AT = b"ustar", 257

_SOURCE = "compress the model that it was made from"
_PICKLE = ("a pickle of Python", "in Python: nnc_core.write('model.nnr', tensors) with its arrays by name")
_ARRAY = ("an array of numpy", "in Python: nnc_core.write('model.nnr', {'name': numpy.load(file)})")
# What else is known by its beginning, from some byte on, and what to do.
_KNOWN = {
    (0, b"\x93NUMPY"): _ARRAY,
    (0, b"GGUF"): ("a GGUF file", _SOURCE),
    (4, b"ORTM"): ("an ORT file of onnxruntime", _SOURCE),
    **{(0, bytes((0x80, protocol))): _PICKLE for protocol in range(2, 6)},
}


def instead_of_a_model(path: Path, adapters: Sequence[Adapter]) -> str | None:
    """What is at ``path`` where a model is expected, and the next step; None where nothing tells."""
    if path.is_dir():
        return "is a folder without a model" + _next_step(path, adapters)
    head = _head(path)
    if head is not None and begins_bitstream(head[:8]):
        return "is an NNR bitstream, not a model; nnc decompress restores the model"
    return _anything(path, head, "a model", adapters)


def _next_step(folder: Path, adapters: Sequence[Adapter]) -> str:
    """What to do with a folder that is not a model, if there is something in it."""
    below = list(islice(chain.from_iterable(map(folder.glob, _BELOW)), _LOOKED_AT))
    models = [str(path.relative_to(folder)) for path in below if any(adapter.sniff(path) for adapter in adapters)]
    if models:
        return f"; name what is meant in it, such as {', '.join(models[:_NAMED])}"
    pointer = next((path.name for path in below if (_head(path) or b"").startswith(_LFS)), None)
    return f"; {pointer} is a Git LFS pointer, git lfs pull fetches the file that it stands for" if pointer else ""


def instead_of_a_bitstream(path: Path, adapters: Sequence[Adapter]) -> str | None:
    """What is at ``path`` where a bitstream is expected, and the next step; None where nothing tells."""
    model = next((adapter.name for adapter in adapters if adapter.sniff(path)), None)
    if model is not None:
        return f"is a model of the format {model}, not an NNR bitstream; nnc compress makes one of it"
    head = _head(path)
    return _anything(path, head, "an NNR bitstream", adapters) if head != b"" else None


def is_placeholder(path: Path) -> bool:
    """Whether the file stands for another one that was not fetched, or for a page that tells where to find it."""
    head = _head(path)
    return head is not None and (head.startswith(_LFS) or _is_page(head) or not head)


def _head(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _anything(path: Path, head: bytes | None, expected: str, adapters: Sequence[Adapter]) -> str | None:
    if head is None:
        return f"is a folder without {expected}" if path.is_dir() else None
    if not head:
        return f"is empty, not {expected}"
    if head.startswith(_LFS):
        return f"is a Git LFS pointer, not {expected}; git lfs pull fetches the file that it stands for"
    if _is_page(head):
        return f"is a web page, not {expected}; perhaps the file behind it needs a login"
    for (at, start), (name, step) in _KNOWN.items():
        if head[at:].startswith(start):
            return f"is {name}, not {expected}; {step}"
    archive = _archive(head)
    if archive is not None:
        return f"is {archive}, not {expected}; {_unpacking(path, adapters)}"
    return f"is a text, not {expected}; nnc formats lists what is known" if _is_text(head) else None


def _unpacking(path: Path, adapters: Sequence[Adapter]) -> str:
    """What to do with an archive."""
    names = _members(path)
    if names and all(name.endswith(".npy") for name in names):
        return "its arrays can be coded in Python: nnc_core.write('model.nnr', dict(numpy.load(file)))"
    suffixes = tuple(suffix for adapter in adapters for suffix in adapter.suffixes)
    models = [name for name in names if name.lower().endswith(suffixes)]
    return "unpack it, and name what is in it" + (f", such as {', '.join(models[:_NAMED])}" if models else "")


def _members(path: Path) -> list[str]:
    """The names in a zip or tar archive; none where it cannot be read."""
    import tarfile  # which takes long, and is rarely needed; so is the next
    import zipfile

    try:
        if (_head(path) or b"").startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        with tarfile.open(path, "r:") as tar:
            return [member.name for member in islice(tar, _LOOKED_AT)]
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError):
        return []


def _archive(head: bytes) -> str | None:
    found = next((name for start, name in _ARCHIVES.items() if head.startswith(start)), None)
    return found or ("a tar archive" if head[_AT:].startswith(_TAR) else None)


def _is_page(head: bytes) -> bool:
    return head.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
