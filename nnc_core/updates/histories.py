"""Histories in a file: a zip of JSON and of levels and marks as integer tensors of two bitstreams.

For bitstreams that are coded and decoded one by one, with `nnc_core.open` and its ``history``, by whoever keeps no
`Chain`: other encoders' updates say nothing about the model they belong to. A chain has `nnc_core.updates.state`.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.encoder import Coding, CodingBlock, encode_block
from nnc_core.coder.history import Histories, History
from nnc_core.errors import ModelError
from nnc_core.file import NnrFile
from nnc_core.limits import Limits
from nnc_core.stored import replacing
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.blocks import Member

_VERSION: Final = 1
_HEAD, _LEVELS, _MARKS = "state.json", "levels.nnr", "marks.nnr"
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What reading something else as a zip, or as the JSON in it, can end in."""

_FIELDS = ("device_id", "parameter_id", "depth")


def save(path: str | os.PathLike[str], histories: Histories) -> None:
    """Write histories to a file, which is either written whole or left as it was."""
    with replacing(path, durable=True) as stream:
        write(stream, histories)


def load(path: str | os.PathLike[str], limits: Limits | None = None) -> dict[str, History]:
    """Read histories that `save` wrote; `ModelError` for another file, `BitstreamError` or `LimitError` for damage."""
    with Path(path).open("rb") as stream:
        return read(stream, limits)


def write(stream: BinaryIO, histories: Histories) -> None:
    """Write histories to a binary file object; the bytes depend on nothing else."""
    head = {"nnc_history": _VERSION, "tensors": {name: _described(each) for name, each in histories.items()}}
    bases = {name: each.base for name, each in histories.items() if each.base is not None}
    marks = {name: each.marks.astype(np.int32) for name, each in histories.items() if each.marks is not None}
    with zipfile.ZipFile(stream, "w") as archive:
        _add(archive, _HEAD, json.dumps(head).encode(), zipfile.ZIP_DEFLATED)
        _add(archive, _LEVELS, _bitstream(bases), zipfile.ZIP_STORED)
        _add(archive, _MARKS, _bitstream(marks), zipfile.ZIP_STORED)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    archive.writestr(zipfile.ZipInfo(name), data, method)  # without the time, which would change the bytes


def _described(history: History) -> dict[str, Any]:
    fields = {name: getattr(history, name) for name in _FIELDS}
    return {**fields, "sha256": history.sha256.hex(), "sha512": history.sha512.hex()}


def _bitstream(matrices: Mapping[str, NDArray[np.int32]]) -> bytes:
    stream, coding = io.BytesIO(), Coding()
    writer = BitstreamWriter(stream, ModelParameterSet())
    for name, matrix in matrices.items():
        block = CodingBlock({Member.WEIGHT: Approximation(matrix)}, {Member.WEIGHT: name}, matrix.shape)
        for unit in encode_block(block, coding):
            writer.data_unit(unit.header, unit.payload.data)
    return stream.getvalue()


def read(stream: BinaryIO, limits: Limits | None = None) -> dict[str, History]:
    """Read histories from a binary file object that can seek; errors as `load`."""
    limits = limits or Limits()
    try:
        with zipfile.ZipFile(stream) as archive:
            head = json.loads(_member(archive, _HEAD, limits))
            levels, marks = (_matrices(_member(archive, name, limits), limits) for name in (_LEVELS, _MARKS))
        if head["nnc_history"] != _VERSION:
            raise ModelError(f"is a state file of version {head['nnc_history']}, expected {_VERSION}")
        return {name: _history(each, levels.get(name), marks.get(name)) for name, each in head["tensors"].items()}
    except _DAMAGE as error:
        raise ModelError(f"is not a state file: {error}") from None


def _member(archive: zipfile.ZipFile, name: str, limits: Limits) -> bytes:
    limits.check("topology_bytes", archive.getinfo(name).file_size, name)
    return archive.read(name)


def _matrices(data: bytes, limits: Limits) -> dict[str, NDArray[np.int32]]:
    tensors = dict(NnrFile(data, limits).decode_all(1))
    if any(array.dtype != np.int32 or array.ndim != 2 for array in tensors.values()):
        raise ValueError("levels that are not matrices of integers")
    return tensors


def _history(described: Mapping[str, Any], base: NDArray[np.int32] | None, marks: NDArray[np.int32] | None) -> History:
    numbers = {name: described[name] for name in _FIELDS}
    if not all(number is None or (type(number) is int and number >= 0) for number in numbers.values()):
        raise ValueError(f"numbers of a node that are not counts: {numbers}")
    return History(
        **numbers,
        base=base,
        marks=None if marks is None else (marks != 0).astype(np.uint8),
        sha256=bytes.fromhex(described["sha256"]),
        sha512=bytes.fromhex(described["sha512"]),
    )
