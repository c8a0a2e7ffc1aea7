"""From a topology and tensors to an ONNX file, tensor by tensor."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from nnc_adapters.onnx import stubs, values
from nnc_adapters.onnx.copies import TRANSPOSED
from nnc_adapters.onnx.reader import parsed
from nnc_adapters.shared import protobuf
from nnc_adapters.shared.compressed import compressing
from nnc_adapters.shared.dtypes import fitted, stored
from nnc_adapters.shared.files import replacing
from nnc_adapters.shared.lazy import check_names
from nnc_core.errors import ModelError
from nnc_core.records import dataclass

# What the writing of a model with external data aligns to, so that each tensor can be mapped into memory.
_PAGE = 4096

# data_location = EXTERNAL as the package serializes it: only messages with these bytes can have a stub inside.
_EXTERNAL = b"\x70\x01"
_RAW_DATA = 9

_Fill = Callable[[TensorProto, protobuf.Hole], "list[protobuf.Piece]"]


def write(
    tensors: Mapping[str, NDArray[Any]], topology: bytes, path: Path, single_file_bytes: int, *, force: bool
) -> None:
    """Write the model; with a data file beside it where it would exceed ``single_file_bytes`` or tensors share bytes.

    That is ``<file name>.data``, or ``<file name>.<number>.data`` while an earlier one of that name is replaced.
    """
    # the parsed model instead of the given bytes: these could say one thing to a parser, another to a scan
    skeleton = _Skeleton(parsed(topology).SerializeToString(deterministic=True))
    pieces = skeleton.with_raw_data()
    check_names(tensors, skeleton.weights)
    if protobuf.length(pieces) <= single_file_bytes and not skeleton.has_ties:
        with replacing(path, force=force) as stream, compressing(stream, path.name) as plain:
            _fill(plain, pieces, tensors, skeleton.weights)
        return
    earlier = _data_files(path)
    data_path = _free_data_path(path, force)
    pieces, data = skeleton.with_external_data(data_path.name)
    # The data are put in their place first, under a name that an earlier model does not use: whenever this ends, a
    # model and the data that it refers to belong together.
    with replacing(path, force=force) as stream, replacing(data_path) as data_stream:
        _fill(data_stream, data, tensors, skeleton.weights)
        with compressing(stream, path.name) as plain:
            _fill(plain, pieces, tensors, skeleton.weights)
    for file in earlier:
        file.unlink(missing_ok=True)


def _data_files(path: Path) -> list[Path]:
    """The files of external data that `write` may have made for the model ``path``."""
    name = re.compile(re.escape(path.name) + r"(\.\d+)?\.data")
    return [file for file in path.parent.iterdir() if name.fullmatch(file.name)]


def _free_data_path(path: Path, force: bool) -> Path:
    usual = path.with_name(path.name + ".data")
    if not os.path.lexists(usual):
        return usual
    if not force:
        raise FileExistsError(f"{usual} exists; -f replaces it (in Python: force=True)")
    numbered = (path.with_name(f"{path.name}.{number}.data") for number in count(2))
    return next(name for name in numbered if not os.path.lexists(name))


@dataclass(frozen=True, slots=True)
class _Weight:
    data_type: int
    dims: tuple[int, ...]
    size: int


class _Skeleton:
    """A serialized topology and the weights that it lacks, in the order in which it lacks them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.weights: dict[str, _Weight] = {}
        self.has_ties = False
        self.shared: set[str] = set()

    def with_raw_data(self) -> list[protobuf.Piece]:
        """The model with a hole for each weight."""
        return self._rewrite(self._raw)

    def with_external_data(self, location: str) -> tuple[list[protobuf.Piece], list[protobuf.Piece]]:
        """The model with references to the file ``location``, and that file."""
        data = _DataFile(location)
        return self._rewrite(data.add), data.pieces

    def _rewrite(self, fill: _Fill) -> list[protobuf.Piece]:
        self.weights.clear()
        self.shared.clear()
        rewriter = protobuf.Rewriter(
            memoryview(self.data),
            TensorProto.DESCRIPTOR.full_name,
            lambda start, end: self._visit(start, end, fill),
            lambda start, end: self.data.find(_EXTERNAL, start, end) >= 0,
        )
        return rewriter.rewrite(ModelProto.DESCRIPTOR)

    def _visit(self, start: int, end: int, fill: _Fill) -> list[protobuf.Piece] | None:
        if self.data.find(_EXTERNAL, start, end) < 0:
            return None
        tensor = TensorProto.FromString(self.data[start:end])
        if not values.is_external(tensor):
            return None
        if not stubs.is_stub(tensor):
            raise ModelError("the topology refers to a file", tensor=tensor.name)
        name, copy = stubs.undo(tensor)
        hole, weight = self._place(tensor, name, copy)
        first = self.weights.setdefault(name, weight)
        same_shape = not copy or first.dims == weight.dims
        if (first.data_type, first.size) != (weight.data_type, weight.size) or not same_shape:
            raise ModelError("the topology has two different tensors of this name", tensor=name)
        self.has_ties |= name in self.shared and not copy
        self.shared |= set() if copy else {name}
        return fill(tensor, hole)

    def _place(self, tensor: TensorProto, name: str, copy: str) -> tuple[protobuf.Hole, _Weight]:
        """What is missing in a place, and which tensor it is."""
        weight = _weight(tensor, name)
        turned = copy == TRANSPOSED
        if turned and len(weight.dims) != 2:
            raise ModelError("the topology transposes what is not a matrix", tensor=name)
        hole = protobuf.Hole(name, weight.size, turned)
        return hole, replace(weight, dims=weight.dims[::-1]) if turned else weight

    @staticmethod
    def _raw(tensor: TensorProto, hole: protobuf.Hole) -> list[protobuf.Piece]:
        return [tensor.SerializeToString(deterministic=True), protobuf.key(_RAW_DATA, hole.size), hole]


def _weight(tensor: TensorProto, name: str) -> _Weight:
    if tensor.data_type not in values.WHOLE_BYTES:
        raise ModelError(f"the topology declares data type {tensor.data_type} for a weight", tensor=name)
    return _Weight(tensor.data_type, tuple(tensor.dims), values.byte_size(tensor) or 0)


class _DataFile:
    """A file of external data that is being laid out."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.pieces: list[protobuf.Piece] = []
        self.size = 0
        self._offsets: dict[protobuf.Hole, int] = {}

    def add(self, tensor: TensorProto, hole: protobuf.Hole) -> list[protobuf.Piece]:
        """Give the bytes of ``tensor`` a place, where they have none yet; returns the tensor that refers to it."""
        if hole not in self._offsets:
            offset = self._offsets[hole] = -(-self.size // _PAGE) * _PAGE
            self.pieces += (bytes(offset - self.size), hole)
            self.size = offset + hole.size
        offset = self._offsets[hole]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", offset), ("length", hole.size)):
            tensor.external_data.add(key=key, value=str(value))
        return [tensor.SerializeToString(deterministic=True)]


def _fill(
    stream: BinaryIO, pieces: list[protobuf.Piece], tensors: Mapping[str, NDArray[Any]], weights: Mapping[str, _Weight]
) -> None:
    left = Counter(piece.name for piece in pieces if isinstance(piece, protobuf.Hole))
    kept: dict[str, NDArray[Any]] = {}  # what has further places, so that it is fetched once
    for piece in pieces:
        if not isinstance(piece, protobuf.Hole):
            stream.write(piece)
            continue
        array = kept.pop(piece.name, None)
        if array is None:
            weight = weights[piece.name]
            array = fitted(tensors[piece.name], piece.name, weight.dims, values.dtype(weight.data_type))
        left[piece.name] -= 1
        if left[piece.name]:
            kept[piece.name] = array
        stream.write(stored(array.T if piece.transposed else array))
