"""The state of a `Chain` as a file: a zip archive of JSON and NNR-coded integers, nothing of which is executed.

What a chain knows is more than the histories of its bitstreams (`nnc_core.updates.histories`): which model it is about,
and how far it has come.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.stored import replacing
from nnc_core.updates.chain import Branch, Chain, Link
from nnc_core.updates.digest import Fingerprint
from nnc_core.updates.packing import Packed, packed, unpacked

__all__ = ["load_chain", "save_chain"]

_VERSION: Final = 2
_BRANCHES: Final = ("updates", "residuals")
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
    with replacing(path, durable=True) as stream, zipfile.ZipFile(stream, "w") as archive:
        _put(archive, "state.json", json.dumps(_described(chain)).encode(), zipfile.ZIP_DEFLATED)
        for number, (name, link) in enumerate(chain.links.items()):
            for member, data in _members(link, (chain.predictions or {}).get(name)):
                _put(archive, f"{number}/{member}", data)


def _members(link: Link, prediction: NDArray[np.float32] | None) -> Iterator[tuple[str, bytes]]:
    """What is kept of a tensor besides its description."""
    for branch in _BRANCHES:
        for kind in _PACKED:
            kept: Packed | None = getattr(getattr(link, branch), kind)
            if kept is not None:
                yield f"{branch}.{kind}", kept.payload
    if link.exponents is not None:
        yield "exponents", packed(link.exponents.astype(np.int32).reshape(1, -1)).payload
    for kind, values in (("values", link.values), ("prediction", prediction)):
        if values is not None:
            yield kind, values.astype("<f4").tobytes()


def _put(archive: zipfile.ZipFile, name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, how)


def _described(chain: Chain) -> dict[str, Any]:
    return {
        "nnc_state": _VERSION,
        "device_id": chain.device_id,
        "sequence": chain.sequence,
        "base": chain.base,
        "digest": chain.digest,
        "rms": chain.rms,
        "predicts": chain.predictions is not None,
        "tensors": [_link_described(n, link, n in (chain.predictions or {})) for n, link in chain.links.items()],
    }


def _link_described(name: str, link: Link, predicted: bool) -> dict[str, Any]:
    dtype, shape, digest = link.fingerprint
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(shape),
        "sha256": digest.hex(),
        "rms": link.rms,
        "values": link.values is not None,
        "prediction": predicted,
        "exponents": None if link.exponents is None else link.exponents.dtype.name,
        **{branch: _branch_described(getattr(link, branch)) for branch in _BRANCHES},
    }


def _branch_described(branch: Branch) -> dict[str, Any]:
    return {
        "device_id": branch.device_id,
        "parameter_id": branch.parameter_id,
        "depth": branch.depth,
        "sha256": branch.sha256.hex(),
        "sha512": branch.sha512.hex(),
        **{kind: list(kept[:2]) for kind in _PACKED if (kept := getattr(branch, kind)) is not None},
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
        links, predictions = {}, {}
        for number, each in enumerate(data["tensors"]):
            name = str(each["name"])
            links[name] = _link(archive, number, each)
            if each["prediction"]:
                predictions[name] = _floats(archive, f"{number}/prediction", links[name].fingerprint.shape)
        chain = Chain(
            str(data["base"]),
            links,
            int(data["sequence"]),
            int(data["device_id"]),
            rms=float(data["rms"]),
            predictions=predictions if data["predicts"] else None,
        )
    if chain.digest != data["digest"]:
        raise ModelError("is damaged: its digest does not match")
    return chain


def _link(archive: zipfile.ZipFile, number: int, data: dict[str, Any]) -> Link:
    shape = tuple(int(extent) for extent in data["shape"])
    exponents = None
    if data["exponents"]:
        packed_ = _packed(archive, f"{number}/exponents", [1, prod(shape)])
        exponents = unpacked(packed_)[0].astype(_UNSIGNED[data["exponents"]])
    return Link(
        Fingerprint(str(data["dtype"]), shape, bytes.fromhex(data["sha256"])),
        updates=_branch(archive, f"{number}/updates", data["updates"]),
        residuals=_branch(archive, f"{number}/residuals", data["residuals"]),
        exponents=exponents,
        values=_floats(archive, f"{number}/values", shape) if data["values"] else None,
        rms=float(data["rms"]),
    )


def _branch(archive: zipfile.ZipFile, name: str, data: dict[str, Any]) -> Branch:
    device_id, parameter_id = (None if (n := data[k]) is None else int(n) for k in ("device_id", "parameter_id"))
    levels, marks = (_packed(archive, f"{name}.{kind}", data[kind]) if kind in data else None for kind in _PACKED)
    digests = (bytes.fromhex(data[kind]) for kind in ("sha256", "sha512"))
    return Branch(device_id, parameter_id, int(data["depth"]), levels, marks, *digests)


def _floats(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.frombuffer(_read(archive, name), "<f4").astype(np.float32).reshape(shape)


def _packed(archive: zipfile.ZipFile, name: str, size: list[int]) -> Packed:
    rows, width = map(int, size)
    return Packed(rows, width, _read(archive, name))


def _read(archive: zipfile.ZipFile, name: str, most: int = _MOST_MEMBER) -> bytes:
    """The bytes of a member, which are in the file as they are, or are few."""
    info = archive.getinfo(name)
    if info.file_size > most or (info.compress_type != zipfile.ZIP_STORED and info.file_size > _MOST_JSON):
        raise ModelError(f"has a member {name!r} of {info.file_size} bytes")
    return archive.read(info)
