"""What a fuzz run starts from: small NNEF archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from typing import Any

import numpy as np

import nnc_core
from annex_tests.fuzz.guard import Box, guarded
from annex_tests.fuzz.reading import LIMITS, Files, Reader, Use, carry, model, topologies
from conformance.fuzz import damage
from nnc_adapters import containers
from nnc_adapters.nnef import NnefAdapter, dat, tar
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_adapters.shared import packing
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

ADAPTER = NnefAdapter()

_TEXT = (*damage.ANY, *[damage.with_other_number_in_text] * 4)
_JSON = (*damage.ANY, *[damage.with_other_json] * 3)
_NAMES = (
    *("../evil", "/evil", "a\\b", "C:x", "x" * 300, "a/" * 1500 + "f"),
    *("layer/filter.nnr", "x.dat", "graph.quant", ""),
)
_GRAPH = b"""version 1.0;

graph g(x) -> (y) # a comment
{
  x = external<scalar>(shape = [1, 8]);
  filter = variable<scalar>(shape = [4, 8], label = 'layer/filter');
  bias = variable<scalar>(shape = [1, 4], label = "layer/bias");
  steps = variable<integer>(shape = [20], label = 'steps');
  nibbles = variable<scalar>(shape = [3, 5], label = 'nibbles');
  mask = variable<logical>(shape = [9], label = 'mask');
  y = linear(x, filter, bias);
}
"""
_SHORT_GRAPH = b"""version 1.0;
graph g(x) -> (y) {
  x = external<scalar>(shape = [1, 8]);
  filter = variable<scalar>(shape = [4, 8], label = 'layer/filter');
  y = matmul(x, filter, transposeB = true);
}
"""
_DIALECT = b"""version 1.0; extension tract_registry tract_core; extension tract_symbol S;
fragment about() -> (p: (string, tensor<scalar>)[]) { p = [("a", "b"), ("c", tract_core_cast(6, to = "i64"))]; }
fragment cell(x: tensor<scalar>, r: tensor<scalar>) -> (y: tensor<scalar>) { y = tanh(matmul(x, r) + x) / (r * 2.0); }
fragment layer(x: tensor<scalar>, w: tensor<scalar>, k: integer = 1) -> (y: tensor<scalar>, z: tensor<scalar>) {
  (y, z) = tract_core_scan(body = "cell", scan = [("x", x, 0, k)], full = [("r", w)], skip = 0);
}
graph g(x) -> (y) {
  x = tract_core_external(shape = [S, 8], datum_type = 'f32'); # another dialect
  filter = variable<scalar>(label = 'layer/filter', shape = [4, 8]);
  steps = variable<integer>([20], 'steps');
  a, b = layer(x, filter, k = 2);
  c = -sin(a * filter) ^ 0.5 if x < 1.0 && !true else [[[0.0, 1e-3]], [[2.0, -.5]]];
  y = tract_core_gather(tract_core_cast(filter, to = "i64"), x[0]) + floor(b - filter) + [for i in x: i];
}
"""
_VENDOR = _SHORT_GRAPH.replace(b"matmul(x, filter", b"matmul(x * filter, filter")
_QUANTIZATION = b'"nibbles": linear_quantize(min = -1.0, max = 1.0, bits = 4);\n'


_LABELS = ("layer/filter", "layer/bias", "steps", "nibbles", "mask")


def tensors() -> Files:
    """The tensor files, of several types."""
    found = {
        "layer/filter": (Header((4, 8)), np.linspace(-1, 1, 32, dtype=np.float32)),
        "layer/bias": (Header((1, 4), ItemType.FLOAT, 16), np.arange(4, dtype=np.float16)),
        "steps": (Header((20,), ItemType.INT, 64), np.arange(-10, 10)),
        "nibbles": (Header((3, 5), ItemType.QINT, 4), np.arange(-8, 7)),
        "mask": (Header((9,), ItemType.BOOL, 1, (0, 5)), np.arange(9) % 2),
    }
    return {f"{label}.dat": head.pack() + bytes(dat.dump(head, array)) for label, (head, array) in found.items()}


def archive() -> Files:
    """The files of an archive."""
    return {"graph.nnef": _GRAPH, "graph.quant": _QUANTIZATION, **tensors(), "README.md": b"how it was made"}


def short() -> Files:
    """The files of an archive with one tensor."""
    return {"./graph.nnef": _SHORT_GRAPH, "layer/filter.dat": tensors()["layer/filter.dat"]}


def with_bitstreams() -> Files:
    """The files of an archive of which two tensors are coded."""
    values = {"layer/filter": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8), "steps": np.arange(-10, 10)}
    coded = {f"{label}.nnr": nnc_core.encode({label: array}, threads=1) for label, array in values.items()}
    return {name: data for name, data in archive().items() if name.replace(".dat", ".nnr") not in coded} | coded


def of_a_vendor() -> Files:
    """The files of an archive whose tensor has items of a type that only its maker knows."""
    data = bytearray(tensors()["layer/filter.dat"])
    data[44:52] = bytes((255, 255, 255, 255, 0x40, 0x20, 0x52, 0x54))
    return {"graph.nnef": _VENDOR, "layer/filter.dat": bytes(data)}


def in_folder(files: Files) -> Files:
    """The files below a folder."""
    return {f"m/{name}": data for name, data in files.items()}


def in_tar(files: Files) -> Files:
    """A tar archive."""
    blocks = ((tar.header(name, len(data)), data, bytes(-len(data) % tar.BLOCK)) for name, data in files.items())
    return {"m.nnef.tar": b"".join((*(piece for block in blocks for piece in block), tar.END))}


def with_long_names(form: int) -> Files:
    """A tar archive, some names in which need more than one header; as Python writes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as target:
        for name, data in {**short(), f"{'n' * 90}/{'o' * 120}": b"", "\u00e4": b""}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return {"m.nnef.tar": stream.getvalue().rstrip(b"\0") + tar.END}


def in_tgz(files: Files) -> Files:
    """The tar archive in ``files``, compressed."""
    return {"m.nnef.tgz": gzip.compress(files.get("m.nnef.tar", b""), mtime=0)}


def in_zip(files: Files) -> Files:
    """A zip archive of the files, whatever they are called."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in files.items():
            target.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return {"m.nnef.zip": stream.getvalue()}


def with_checksums(files: Files) -> Files:
    """The tar archive in ``files``, with checksums that fit whatever its headers have become."""
    data = files.get("m.nnef.tar", b"")
    blocks = [bytearray(data[at : at + tar.BLOCK]) for at in range(0, len(data), tar.BLOCK)]
    for block in blocks:
        if block[257:262] == b"ustar" and len(block) == tar.BLOCK:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return {"m.nnef.tar": b"".join(blocks)}


def embedded() -> Files:
    """An archive with a bitstream in place of every tensor."""
    with guarded() as box:
        root = box.target("embedded")
        ADAPTER.embed(box.put(in_folder(archive()), "m"), root, threads=1)
        return {f"{name}.nnr": (root / f"{name}.nnr").read_bytes() for name in _LABELS}


def use_embedded(files: Files, box: Box) -> None:
    """Take the bitstreams out of an archive, decode them there, and code their values again."""
    path = box.put(in_folder({"graph.nnef": _GRAPH, "graph.quant": _QUANTIZATION, **files}), "m")
    carry(path, box)
    decoded, again = box.target("decoded.nnef.tar"), box.target("again.nnef.zip")
    with box.step(decoded):
        ADAPTER.extract(path, decoded)
    with box.step(again):
        ADAPTER.embed(path, again, threads=1)
    plain, into = box.target("whole.nnr"), box.target("into")
    with box.step():
        containers.extract(path, plain)
        with box.step(into):
            containers.embed(plain, into, into=path)


# Topologies -----------------------------------------------------------------------------------------------------------


def apart(topology: Topology) -> Files:
    """What a topology consists of."""
    assert topology.private is not None
    private = {f"private/{name}": data for name, data in packing.unpack(topology.private, LIMITS).items()}
    found = {"graph.nnef": topology.data, **private}
    return found if topology.quantization is None else {**found, "graph.quant": topology.quantization}


def together(files: Files) -> Topology:
    """The topology of these parts."""
    private = {name.removeprefix("private/"): data for name, data in files.items() if name.startswith("private/")}
    return Topology(
        TopologyStorageFormat.NNR_TPL_NNEF,
        files.get("graph.nnef", b""),
        files.get("graph.quant"),
        packing.pack(private),
    )


# Readers --------------------------------------------------------------------------------------------------------------


def _reader(name: str, seeds: dict[str, Files], use: Use, *more: Any, **options: Any) -> Reader:
    return Reader(f"nnef/{name}", seeds, use, *more, **options)


def readers() -> list[Reader]:
    """Every reader of NNEF archives, and of their topologies."""
    archives = {"tensors": archive(), "bitstreams": with_bitstreams()}
    plain = archive()
    text = {name: plain.pop(name) for name in ("graph.nnef", "graph.quant")}  # type: ignore[attr-defined]
    forms = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
    tars = {"plain": in_tar(short()), **{name: with_long_names(form) for name, form in forms.items()}}

    dialect = {"graph.nnef": _DIALECT, "graph.quant": _QUANTIZATION}
    graphs = {"text": text, "dialect": dialect}
    packers = {"bz2": bz2.compress, "xz": lzma.compress}

    def beside_graph(files: Files) -> Files:
        return in_folder({**text, **files})

    def zipped(files: Files) -> Files:
        return in_zip({**text, **files})

    def beside_tensors(files: Files) -> Files:
        return in_folder({**files, **plain})

    return [
        _reader("graph", graphs, model(ADAPTER, "m", beside_tensors), _TEXT),
        _reader("graph alone", graphs, model(ADAPTER, "m/graph.nnef", beside_tensors), _TEXT),
        _reader("vendor", {"files": of_a_vendor()}, model(ADAPTER, "m", in_folder)),
        *(
            _reader(
                f"tar.{suffix}",
                {"plain": {f"m.nnef.tar.{suffix}": pack(in_tar(short())["m.nnef.tar"])}},
                model(ADAPTER, f"m.nnef.tar.{suffix}"),
            )
            for suffix, pack in packers.items()
        ),
        _reader("tensors", {"files": plain}, model(ADAPTER, "m", beside_graph)),
        _reader(
            "bitstreams",
            {"files": {name: data for name, data in with_bitstreams().items() if name not in text}},
            model(ADAPTER, "m", beside_graph),
        ),
        _reader("tar", tars, model(ADAPTER, "m.nnef.tar")),
        _reader("tar with checksums", tars, model(ADAPTER, "m.nnef.tar", with_checksums)),
        _reader("tgz", {name: in_tgz(files) for name, files in tars.items()}, model(ADAPTER, "m.nnef.tgz")),
        _reader("zip", {name: in_zip(files) for name, files in archives.items()}, model(ADAPTER, "m.nnef.zip")),
        _reader("zip members", {"files": plain}, model(ADAPTER, "m.nnef.zip", zipped), damage.ANY, _NAMES),
        _reader("embedded", {"archive": embedded()}, use_embedded),
        *topologies(
            ADAPTER,
            {"archive": ("m.nnef.tar", in_tar(archive())), "folder": ("m", in_folder(archive()))},
            apart,
            together,
            damages=(*_TEXT, *_JSON),
        ),
    ]
