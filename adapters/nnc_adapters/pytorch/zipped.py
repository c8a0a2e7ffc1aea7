"""Zip archives of PyTorch: state dicts and checkpoints, TorchScript, and exported programs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from nnc_adapters.pytorch import pickles, search
from nnc_adapters.pytorch.admitted import TORCHSCRIPT
from nnc_adapters.pytorch.archive import Member, members
from nnc_adapters.pytorch.views import ITEM_SIZES, Checksum, Scan, View
from nnc_adapters.shared import strict_json
from nnc_core.limits import Limits
from nnc_core.stored import Bytes

# Of torch._export.serde.schema.ScalarType, those that may be coded or viewed.
_SCALAR_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_STRIDED = 7
_WEIGHTS = "data/weights/"
_CONFIG = "_weights_config.json"
_OLD_EXPORTS = ("serialized_exported_program.json", "serialized_state_dict.pt", "serialized_state_dict.json")
_HOW = "load it with torch.export.load and save it with a current version of PyTorch"


class _Archive:
    """The members below the one folder that every archive of PyTorch has."""

    def __init__(self, view: Bytes, limits: Limits) -> None:
        self.view, self.limits = view, limits
        self.members: dict[str, Member] = {}
        found = members(view)
        self.prefix = next(iter(found), "").partition("/")[0] + "/"
        for name, member in found.items():
            if name.startswith(self.prefix):
                self.members[name[len(self.prefix) :]] = member

    def stored(self, name: str) -> Member:
        """A member that is not compressed; `ValueError` where there is none."""
        member = self.members.get(name)
        if member is None:
            raise ValueError(f"the archive has no member {self.prefix}{name}")
        if not member.stored:
            raise ValueError(f"the member {self.prefix}{name} is compressed; load and save it again with torch")
        return member

    def read(self, name: str) -> bytes:
        """The bytes of a small member."""
        member = self.stored(name)
        self.limits.check("topology_bytes", member.end - member.start, name)
        return bytes(self.view[member.start : member.end])

    def checksums(self, views: list[View]) -> list[Checksum]:
        """The checksums of all members that views lie in."""
        spans = {view.storage for view in views}
        return [Checksum(m.start, m.end, m.checksums) for m in self.members.values() if (m.start, m.end) in spans]


def scan(view: Bytes, limits: Limits, *, opaque: bool = False) -> Scan:
    """Find the tensors of an archive, which may have ``opaque`` objects.

    `ValueError` for a damaged archive, or one that is not PyTorch's.
    """
    archive = _Archive(view, limits)
    if "byteorder" in archive.members and archive.read("byteorder") != b"little":
        raise ValueError("its numbers are big endian; load and save it again with torch on a common machine")
    configs = [n for n in archive.members if n.startswith(_WEIGHTS) and n.endswith(_CONFIG)]
    if configs or "archive_format" in archive.members:
        return _exported(archive, configs)
    if any(name in archive.members for name in _OLD_EXPORTS):
        raise ValueError(f"it was exported by an old version of PyTorch; {_HOW}")
    if "constants.pkl" in archive.members:
        made = {name: _pickle(archive, name, TORCHSCRIPT) for name in ("data", "constants")}
        views = [view for name, pickle in made.items() for view in _views(archive, name, pickle)]
        return Scan("torchscript", views, archive.checksums(views))
    pickle = _pickle(archive, "data", opaque=opaque)
    views = list(_views(archive, "data", pickle))
    return Scan("zip", views, archive.checksums(views), nested=True, opaque=frozenset(pickle.opaque))


def value(view: Bytes, limits: Limits) -> Any:
    """What was saved, with every object in it as it is described."""
    return _pickle(_Archive(view, limits), "data", opaque=True).value


def _pickle(archive: _Archive, name: str, classes: tuple[str, ...] = (), *, opaque: bool = False) -> pickles.Pickle:
    return pickles.load(io.BytesIO(archive.read(f"{name}.pkl")), classes=classes, opaque=opaque)


def _views(archive: _Archive, name: str, pickle: pickles.Pickle) -> Iterator[View]:
    spans: dict[str, tuple[int, int]] = {}
    for storage in pickle.storages:
        member = archive.stored(f"{name}/{storage.key}")
        spans[storage.key] = (member.start, member.end)
    prefix = ("constants",) if name == "constants" else ()
    return views(pickle, spans, archive.limits, prefix)


def views(
    pickle: pickles.Pickle, spans: Mapping[str, tuple[int, int]], limits: Limits, prefix: tuple[str, ...] = ()
) -> Iterator[View]:
    """The tensors of a pickle as views of the storages at ``spans``; those without a path of their own come last."""
    reached: set[int] = set()
    for path, tensor, optimizer in search.tensors(pickle.value, limits.nesting):
        reached.add(id(tensor))
        # what an optimizer remembers spans too many magnitudes: coded, it would ruin the next step
        exact = optimizer or not tensor.plain
        yield _view((*prefix, *path), tensor, spans[tensor.storage.key], exact, optimizer)
    for tensor in pickle.tensors:
        if id(tensor) not in reached:
            yield _view((), tensor, spans[tensor.storage.key], True)
    viewed = {tensor.storage.key for tensor in pickle.tensors}
    for storage in pickle.storages:
        if storage.key not in viewed:
            yield View((), "uint8", (), (), spans[storage.key][0], spans[storage.key], True)


def _view(
    path: tuple[str, ...], tensor: pickles.Tensor, span: tuple[int, int], exact: bool, optimizer: bool = False
) -> View:
    item = ITEM_SIZES.get(tensor.storage.dtype, 0)
    start = span[0] + tensor.storage.offset * item + tensor.offset * ITEM_SIZES.get(tensor.dtype, 0)
    exact = exact or tensor.dtype not in ITEM_SIZES
    return View(path, tensor.dtype, tensor.shape, tensor.strides, start, span, exact, optimizer).checked()


def _exported(archive: _Archive, configs: list[str]) -> Scan:
    if not configs:
        raise ValueError(f"the exported program has no {_WEIGHTS}*{_CONFIG}; {_HOW}")
    found: list[View] = []
    for name in configs:
        config = strict_json.document(archive.read(name))["config"]
        prefix = (name[len(_WEIGHTS) : -len(_CONFIG)],) if len(configs) > 1 else ()
        found += (_weight(archive, (*prefix, path), entry) for path, entry in config.items())
    return Scan("export", found, archive.checksums(found))


def _weight(archive: _Archive, path: tuple[str, ...], entry: Mapping[str, Any]) -> View:
    member = archive.stored(_WEIGHTS + str(entry["path_name"]))
    meta = entry["tensor_meta"] or {}
    span = (member.start, member.end)
    dtype = _SCALAR_TYPES.get(meta.get("dtype", 0))
    if entry["use_pickle"] or dtype is None or meta["layout"] != _STRIDED:
        return View(path, "uint8", (), (), member.start, span, True)
    sizes, strides = (tuple(strict_json.count(s["as_int"]) for s in meta[key]) for key in ("sizes", "strides"))
    start = member.start + strict_json.count(meta["storage_offset"]["as_int"]) * ITEM_SIZES[dtype]
    return View(path, dtype, sizes, strides, start, span).checked()


def is_known(view: Bytes) -> bool:
    """Whether an archive has the members that one of PyTorch must have; `ValueError` for a damaged archive."""
    found = {name.partition("/")[2] for name in members(view)}
    return bool(found & {"data.pkl", "archive_format", *_OLD_EXPORTS})
