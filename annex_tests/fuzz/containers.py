"""What a fuzz run starts from: small files of every format that carries bitstreams."""

from __future__ import annotations

import io
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

import nnc_adapters
import nnc_core
from annex_tests.fuzz.guard import Box
from annex_tests.fuzz.reading import Files, Reader, carry, container, sniff
from annex_tests.support import handmade_tensorflow
from conformance.fuzz import damage
from nnc_adapters import containers
from nnc_adapters.containers.numcodecs_codec import Nnc
from nnc_core.bitstream.parts import split
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

_JSON = (*damage.ANY, *[damage.with_other_json] * 3)
_NAMES = ("../evil.nnr", "/evil.nnr", "%2e%2e.nnr", "%ff.nnr", "%00.nnr", "b.nnr", "b.npy", "", "x" * 300)


def bitstream() -> bytes:
    """A bitstream of three tensors and a topology."""
    tensors = {"a": np.arange(20, dtype=np.float32), "b/c": np.zeros((4, 5), np.float32), "d": np.arange(9)}
    topology = Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"graph")
    return nnc_core.encode(tensors, topology=topology, threads=1)


def carried(kind: str, per_tensor: bool) -> Files:
    """The bitstream in a container of this kind."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "coded.nnr").write_bytes(bitstream())
        target = Path(folder, "x")
        containers.embed(Path(folder, "coded.nnr"), target, container=kind, per_tensor=per_tensor)
        files = [target] if target.is_file() else sorted(target.iterdir())
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of an ISO base media file."""
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + kind + data


def media_file() -> Files:
    """An ISO base media file with items in several pieces and in ``idat``, properties, and boxes of other kinds."""
    found = split(bitstream())
    first, second = found["a"], found["d"]
    start = box(b"ftyp", b"isom", bytes(8)) + box(b"free", b"nothing")
    places = [(1, 0, len(start) + 8, 30), (1, 0, len(start) + 38, len(first) - 30), (2, 1, 0, len(second))]

    def entry(item: int) -> bytes:
        own = [place for place in places if place[0] == item]
        head = (item, own[0][1], 0, len(own))
        return b"".join(
            (*(n.to_bytes(2, "big") for n in head), *(n.to_bytes(4, "big") for place in own for n in place[2:]))
        )

    infos = (box(b"infe", b"\2\0\0\0", bytes([0, n, 0, 0]), b"nnr1", b"%d\0" % n) for n in (1, 2))
    properties = box(b"iprp", box(b"ipco", box(b"nnrC", b"\1")), box(b"ipma", bytes(4), b"\0\0\0\1\0\1\1\1"))
    meta = box(
        b"meta",
        bytes(4),
        box(b"hdlr", bytes(8), b"nnet", bytes(13)),
        box(b"pitm", bytes(4), b"\0\1"),
        box(b"iinf", bytes(4), b"\0\2", *infos),
        box(b"iloc", b"\1\0\0\0\x44\0\0\2", entry(1), entry(2)),
        properties,
        box(b"idat", second),
    )
    return {"x": start + box(b"mdat", first) + meta}


def in_zip(method: int, files: Files) -> Files:
    """A zip archive of the files, whatever they are called."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in files.items():
            target.writestr(zipfile.ZipInfo(name), data, method)
    return {"x": stream.getvalue()}


def with_header(files: Files) -> Files:
    """A file of safetensors, with the size of its header as it is."""
    header, data = files.get("header", b""), files.get("data", b"")
    return {"x": len(header).to_bytes(8, "little") + header + data}


def members(kind: str) -> Files:
    """The members of a zip archive that carries the bitstream."""
    with zipfile.ZipFile(io.BytesIO(carried(kind, True)["x"])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved_model() -> Files:
    """A SavedModel with its bitstream in it."""
    graph = handmade_tensorflow.saved_graph()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "m").mkdir()
        Path(folder, "m", "saved_model.pb").write_bytes(graph)
        nnc_adapters.compress(Path(folder, "m"), Path(folder, "m.nnr"), threads=1)
        return {"m/saved_model.pb": graph, "m/assets.extra/model.nnr": Path(folder, "m.nnr").read_bytes()}


def use_saved_model(files: Files, guard: Box) -> None:
    """Take the bitstream out of a SavedModel."""
    path = guard.put(files, "m")
    sniff(path)
    carry(path, guard)
    target = guard.target("copy")
    with guard.step(target):
        containers.embed(path, target, into=path, container="savedmodel")


def use_chunk(files: Files, guard: Box) -> None:
    """Decode a chunk of an array, as the codec of numcodecs does."""
    with guard.step():
        Nnc().decode(files["chunk"])


def chunks() -> Files:
    """Arrays in bitstreams: honest ones, and such as have values that their type has not."""
    honest = {dtype: Nnc().encode(np.arange(12, dtype=dtype).reshape(3, 4)) for dtype in (">f8", "<f2", "<i4")}
    return {**honest, "f2 overflow": nnc_core.encode({"<f2": np.full(9, 65505, np.float32)}, threads=1)}


def readers() -> list[Reader]:
    """Every reader of containers."""
    by_name = {each.name: each for each in containers.CONTAINERS}
    ways = {"whole": False, "per tensor": True}
    found = [
        Reader(f"container/{name}", {way: carried(name, each) for way, each in ways.items()}, container(kind, "x"))
        for name, kind in by_name.items()
    ]
    whole = carried("safetensors", True)["x"]
    size = int.from_bytes(whole[:8], "little")
    header = {"header": whole[8 : 8 + size], "data": whole[8 + size :]}
    mp4, table = by_name["isobmff"], by_name["safetensors"]
    return [
        *found,
        Reader("container/isobmff boxes", {"items": media_file()}, container(mp4, "x")),
        Reader("container/safetensors header", {"file": header}, container(table, "x", with_header), _JSON),
        *(
            Reader(
                f"container/{kind} members",
                {"archive": members(kind)},
                container(by_name[kind], "x", partial(in_zip, method)),
                damage.ANY,
                _NAMES,
            )
            for kind, method in (("zip", zipfile.ZIP_DEFLATED), ("npz", zipfile.ZIP_STORED))
        ),
        Reader("container/saved model", {"folder": saved_model()}, use_saved_model),
        Reader("container/chunk", {name: {"chunk": data} for name, data in chunks().items()}, use_chunk),
    ]
