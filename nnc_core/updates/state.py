"""A chain's state as a file: a zip archive of JSON and NNR-coded integers, nothing of which is executed."""

from __future__ import annotations

import errno
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, Final, cast

import numpy as np

from nnc_core.errors import ModelError
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.digest import Fingerprint
from nnc_core.updates.packing import Packed, packed, unpacked

__all__ = ["load_chain", "save_chain"]

_VERSION: Final = 1
_PACKED: Final = ("levels", "marks")
_UNSIGNED: Final = {"uint8": np.uint8, "uint16": np.uint16}
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    RuntimeError,  # also of what is encrypted, nested too deeply, or compressed in another way
    OSError,  # EINVAL, of an impossible place in the file
)
"""What `zipfile` and `json` raise for damaged files."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MOST_JSON: Final = 1 << 28
_MOST_MEMBER: Final = 1 << 34


def save_chain(chain: Chain, path: str | os.PathLike[str]) -> None:
    """Write the state; the file appears complete or not at all, and replaces one that was there."""
    with _replacing(Path(path)) as stream, zipfile.ZipFile(stream, "w") as archive:
        _put(archive, "state.json", json.dumps(_described(chain)).encode(), zipfile.ZIP_DEFLATED)
        for number, link in enumerate(chain.links.values()):
            for kind in _PACKED:
                kept: Packed | None = getattr(link, kind)
                if kept is not None:
                    _put(archive, f"{number}/{kind}", kept.payload)
            if link.exponents is not None:
                _put(archive, f"{number}/exponents", packed(link.exponents.astype(np.int32).reshape(1, -1)).payload)
            if link.values is not None:
                _put(archive, f"{number}/values", link.values.astype("<f4").tobytes())


def _put(archive: zipfile.ZipFile, name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, how)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` once it is written and safe on the disk."""
    file = NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    try:
        with file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _described(chain: Chain) -> dict[str, Any]:
    return {
        "nnc_state": _VERSION,
        "device_id": chain.device_id,
        "sequence": chain.sequence,
        "base": chain.base,
        "digest": chain.digest,
        "rms": chain.rms,
        "tensors": [_link_described(name, link) for name, link in chain.links.items()],
    }


def _link_described(name: str, link: Link) -> dict[str, Any]:
    dtype, shape, digest = link.fingerprint
    sizes = {kind: list(kept[:2]) for kind in _PACKED if (kept := getattr(link, kind)) is not None}
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(shape),
        "sha256": digest.hex(),
        "parameter_id": link.parameter_id,
        "depth": link.depth,
        "rms": link.rms,
        "values": link.values is not None,
        "exponents": None if link.exponents is None else link.exponents.dtype.name,
        **sizes,
    }


def load_chain(path: str | os.PathLike[str]) -> Chain:
    """Read what `save_chain` wrote; `ModelError` for any other file, or a damaged one."""
    with Path(path).open("rb") as stream:
        try:
            return _read_chain(stream)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            message = f"is not the state of a chain of updates, or damaged: {error!r}"
            raise ModelError(message, file=str(path)) from None
        except ModelError as error:
            error.file = str(path)
            raise


def _read_chain(stream: BinaryIO) -> Chain:
    with zipfile.ZipFile(stream) as archive:
        data = json.loads(_read(archive, "state.json", _MOST_JSON))
        if data["nnc_state"] != _VERSION:
            raise ModelError(f"is a state of version {data['nnc_state']}, expected {_VERSION}")
        links = {str(each["name"]): _link(archive, n, each) for n, each in enumerate(data["tensors"])}
        chain = Chain(str(data["base"]), links, int(data["sequence"]), int(data["device_id"]), rms=float(data["rms"]))
    if chain.digest != data["digest"]:
        raise ModelError("is damaged: its digest is another one")
    return chain


def _link(archive: zipfile.ZipFile, number: int, data: dict[str, Any]) -> Link:
    shape = tuple(int(extent) for extent in data["shape"])
    kept: dict[str, Any] = {kind: _packed(archive, f"{number}/{kind}", data[kind]) for kind in _PACKED if kind in data}
    values = None
    if data["values"]:
        values = np.frombuffer(_read(archive, f"{number}/values"), "<f4").astype(np.float32).reshape(shape)
    if data["exponents"]:
        size = [1, prod(shape)]
        kept["exponents"] = unpacked(_packed(archive, f"{number}/exponents", size))[0].astype(
            _UNSIGNED[data["exponents"]]
        )
    return Link(
        parameter_id=int(data["parameter_id"]),
        fingerprint=Fingerprint(str(data["dtype"]), shape, bytes.fromhex(data["sha256"])),
        depth=int(data["depth"]),
        rms=float(data["rms"]),
        values=values,
        **kept,
    )


def _packed(archive: zipfile.ZipFile, name: str, size: list[int]) -> Packed:
    rows, width = map(int, size)
    return Packed(rows, width, _read(archive, name))


def _read(archive: zipfile.ZipFile, name: str, most: int = _MOST_MEMBER) -> bytes:
    """The bytes of a member, which are in the file as they are, or are few."""
    info = archive.getinfo(name)
    if info.file_size > most or (info.compress_type != zipfile.ZIP_STORED and info.file_size > _MOST_JSON):
        raise ModelError(f"has a member {name!r} of {info.file_size} bytes")
    return archive.read(info)
