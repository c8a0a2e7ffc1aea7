"""From a topology and tensors to files, tensor by tensor."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from nnc_adapters.pytorch.layout import DESCRIPTION, FOLDERS, REPOSITORY, opened, scan
from nnc_adapters.pytorch.views import PATTERNS, Checksum, Data, Layout
from nnc_adapters.shared import packing, strict_json
from nnc_adapters.shared.dtypes import fitted, named, stored
from nnc_adapters.shared.files import replacing, replacing_folder
from nnc_adapters.shared.lazy import check_names
from nnc_adapters.shared.paths import inside, single
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.stored import NewFile

Tensors = Mapping[str, NDArray[Any]]
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A file without its coded tensors: ``holes`` are places in the whole file, and the names of what belongs there.

    ``zeros`` are places and numbers of bytes that are zero.
    """

    name: str
    data: bytes
    holes: list[tuple[int, str]]
    zeros: list[tuple[int, int]]
    checksums: list[Checksum]

    def gaps(self) -> list[tuple[int, str | int]]:
        """Holes and zeros, one behind the other."""
        return sorted([*self.holes, *self.zeros], key=lambda gap: gap[0])


PICKLES = (".pt", ".pth", ".th", ".ckpt", ".bin")
SUFFIXES: dict[str, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "export": (".pt2", ".pt", ".pth"),
    **dict.fromkeys(FOLDERS, ()),
}
"""How the names of files end, by the kind of model, where that is not one of `PICKLES`."""


class Description:
    """What a topology says about the files of a model and the tensors that they lack.

    Raises `ModelError` where it contradicts itself.
    """

    def __init__(self, topology: bytes, limits: Limits) -> None:
        self.limits = limits
        content = packing.unpack(topology, limits)
        try:
            whole = strict_json.document(content[DESCRIPTION])
            self.kind = str(whole["kind"])
            self.root = tuple(map(str, whole.get("root", ())))
            self.layouts = {str(t["name"]): _layout(t) for t in whole.get("tensors", ()) if "name" in t}
            self.files = [_skeleton(f, content[f"file/{i}"]) for i, f in enumerate(whole["files"])]
            self._check()
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ModelError(f"the topology is damaged: {error}") from error

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors that the files lack, by name."""
        return {name: layout.shape for name, layout in self.layouts.items()}

    def _check(self) -> None:
        self.limits.check("decoded_bytes", sum(size for file in self.files for _, size in file.zeros), "the topology")
        filled = [name for file in self.files for _, name in file.holes]
        if sorted(filled) != sorted(self.layouts):
            raise ValueError("its tensors are not those that its files lack")
        names = [file.name for file in self.files]
        if self.kind not in FOLDERS and names != [""]:
            raise ValueError("a single file is not alone")
        if self.kind in FOLDERS and len({self._path(name).lower() for name in names}) != len(names):
            raise ValueError("two files have the same name")

    def _path(self, name: str) -> str:
        return inside(name) if self.kind == REPOSITORY else single(name)

    def fill(self, stream: BinaryIO, file: Skeleton, tensors: Tensors) -> None:
        """Write the whole of ``file``."""
        output = _Output(stream, file.checksums)
        view, at = memoryview(file.data), 0
        for start, what in file.gaps():
            before = start - output.size
            if not 0 <= before <= len(view) - at:
                raise ModelError(f"the topology has no place for {what!r} at byte {start}")
            output.write(view[at : at + before])
            at += before
            if isinstance(what, str):
                output.write(self._bytes(what, tensors[what]))
            else:
                output.write_zeros(what)
        output.write(view[at:])
        output.patch()

    def _bytes(self, name: str, array: NDArray[Any]) -> memoryview:
        layout = self.layouts[name]
        return stored(layout.lying(fitted(array, name, layout.shape, named(layout.dtype))))


def _layout(tensor: Mapping[str, Any]) -> Layout:
    shape = tuple(map(strict_json.count, tensor["shape"]))
    order = tuple(map(strict_json.count, tensor.get("order", range(len(shape)))))
    if tensor["dtype"] not in PATTERNS or sorted(order) != list(range(len(shape))):
        raise ValueError(f"tensor {tensor['name']!r} cannot lie anywhere")
    return Layout(tensor["dtype"], shape, order)


def _skeleton(file: Mapping[str, Any], data: bytes) -> Skeleton:
    holes = [(strict_json.count(start), str(name)) for start, name in file.get("holes", [])]
    zeros = [(strict_json.count(start), strict_json.count(size)) for start, size in file.get("zeros", [])]
    checksums = [_checksum(*checksum) for checksum in file.get("checksums", [])]
    return Skeleton(str(file.get("name", "")), data, holes, zeros, checksums)


def _checksum(start: Any, end: Any, places: Any) -> Checksum:
    return Checksum(strict_json.count(start), strict_json.count(end), tuple(map(strict_json.count, places)))


class _Output:
    """A file that is being written, and the checksums of parts of it."""

    def __init__(self, stream: BinaryIO, checksums: list[Checksum]) -> None:
        self.stream = stream
        self.size = 0
        self.checksums = sorted(checksums, key=lambda checksum: checksum.start)
        self.values = [0] * len(checksums)
        self.open = 0

    def write(self, data: memoryview) -> None:
        begin, self.size = self.size, self.size + len(data)
        self.stream.write(data)
        for index in range(self.open, len(self.checksums)):
            checksum = self.checksums[index]
            if checksum.start >= self.size:
                break
            inside = data[max(0, checksum.start - begin) : max(0, checksum.end - begin)]
            self.values[index] = zlib.crc32(inside, self.values[index])
            self.open = index + (checksum.end <= self.size)

    def write_zeros(self, size: int) -> None:
        piece = memoryview(bytes(min(size, _PIECE)))
        for at in range(0, size, _PIECE):
            self.write(piece[: size - at])

    def patch(self) -> None:
        """Put the checksums in their places."""
        for checksum, value in zip(self.checksums, self.values, strict=True):
            for place in checksum.places:
                if place + 4 > self.size:
                    raise ModelError("the topology has a checksum outside its file")
                self.stream.seek(place)
                self.stream.write(value.to_bytes(4, "little"))


def write(tensors: Tensors, topology: bytes, path: Path, limits: Limits, *, force: bool, opaque: bool = False) -> None:
    """Write the model: a file, or a folder of several; pickles may have ``opaque`` objects."""
    description = Description(topology, limits)
    check_names(tensors, description.layouts)
    if description.kind not in FOLDERS:
        with replacing(path, force=force) as stream:
            description.fill(stream, description.files[0], tensors)
            stream.flush()
            with _checked():
                scan(Data.of_file(Path(stream.name)), limits, opaque=opaque)
        return
    with replacing_folder(path, force=force) as folder:
        for file in description.files:
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            with NewFile(folder / file.name) as stream:
                description.fill(stream, file, tensors)
        with _checked():
            found = {file.name for file in opened(folder, limits, opaque=opaque).files}
            for unlisted in (file.name for file in description.files if file.name not in found):
                scan(Data.of_file(folder / unlisted), limits, opaque=opaque)


@contextmanager
def _checked() -> Iterator[None]:
    """What was written must be a model that would be read: a topology can say anything."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"no model can be made from the topology: {error.message}") from error
