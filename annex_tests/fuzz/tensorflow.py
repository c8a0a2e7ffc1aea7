"""What a fuzz run starts from: small SavedModels, checkpoints, Keras files and TFLite models."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from annex_tests.fuzz.reading import Files, Reader, model, packed, topologies, unpacked
from annex_tests.support import handmade_tensorflow as handmade
from annex_tests.support.handmade_tensorflow import HEADER, WEIGHT, contents, entry, handle, message, sealed, varint
from conformance.fuzz import damage
from nnc_adapters.tensorflow import TensorflowAdapter
from nnc_core.nnr_model import Topology

ADAPTER = TensorflowAdapter()

_JSON = (*damage.ANY, *[damage.with_other_json] * 3)
_NAMES = ("../evil", "/evil", "a/b", "C:x", "x.weights.h5", "assets/x", "", "x" * 300, "model.weights.h5/x")
_BIAS = np.linspace(-1, 1, 20, dtype=np.float32)
_INDEX, _DATA = "variables.index", "variables.data-00000-of-00001"
_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


# Checkpoints ----------------------------------------------------------------------------------------------------------


def objects() -> bytes:
    """The graph of a model with two variables, and of an optimizer with a slot for one of them."""

    def attribute(key: bytes, name: bytes) -> tuple[int, bytes]:
        return 2, message((1, b"VARIABLE_VALUE"), (2, name), (3, key))

    children = ((1, b"w"), (2, b"b"), (3, b"_optimizer"))
    root = message(*((1, message((1, node), (2, name))) for node, name in children))
    own = message((1, message((1, 4), (2, b"_variables"))), (1, message((1, 5), (2, b"_iterations"))))
    slots = message((3, message((1, 1), (2, b"m"), (3, 5))))
    nodes = (root, message(attribute(b"w", b"dense/kernel")), message(attribute(b"b", b"dense/bias")), own, slots)
    return message(*((1, node) for node in (*nodes, message(attribute(b"slot", b"Adam/m")))))


def text(data: bytes) -> bytes:
    """What a data file has for a tensor that is one text."""
    return varint(len(data)) + handmade.masked(varint(len(data))) + data


def checkpoint(graph: bytes) -> tuple[bytes, bytes]:
    """The contents of the block of an index, and the data file."""
    arrays = {b"b": _BIAS, b"copy": WEIGHT, b"half": np.arange(16, dtype=np.float16), b"slot": WEIGHT, b"w": WEIGHT}
    kinds, data = {b"half": 19}, text(graph)
    pairs = [(b"", HEADER), (b"\0part\0\1\0", entry(WEIGHT, offset=len(data)))]
    data += WEIGHT.tobytes()
    pairs.append((_GRAPH, message((1, 7), (2, b""), (5, len(text(graph))))))
    for key, array in arrays.items():
        pairs.append((key, entry(array, offset=len(data), dtype=kinds.get(key, 1))))
        data += array.tobytes()  # type: ignore[attr-defined]
    parts = message((1, 1), (2, message((2, message((1, 4))))), (7, message()))  # a tensor that is stored in slices
    return contents([*pairs, (b"x", parts)]), data


def index_of(files: Files) -> Files:
    """A checkpoint of the entries and the index block in ``files``, with checksums that fit."""
    blocks = sealed(files.get("entries", b""))
    index = handmade.with_index(blocks, files.get("index", b""))
    return {"c.index": index, "c.data-00000-of-00001": files.get("data", b"")}


def checkpoint_of(files: Files) -> Files:
    """A checkpoint with this graph of objects."""
    entries, data = checkpoint(files.get("graph", b""))
    return index_of({"entries": entries, "index": pointer(entries), "data": data})


def pointer(entries: bytes) -> bytes:
    """The contents of an index block for a block with ``entries``."""
    return contents([(b"z", handle(0, len(entries)))])


def saved_model() -> Files:
    """A SavedModel: the graph is of no concern, but for being there."""
    entries, data = checkpoint(objects())
    index = handmade.with_index(sealed(entries), pointer(entries))
    files = {"saved_model.pb": b"\x08\x01", f"variables/{_INDEX}": index, f"variables/{_DATA}": data}
    return {f"m/{name}": content for name, content in {**files, "assets/words.txt": b"one\ntwo\n"}.items()}


# Keras ----------------------------------------------------------------------------------------------------------------


def hdf5(libver: str) -> bytes:
    """A file of weights in the oldest or the newest way, with attributes, chunks, and groups of an optimizer."""
    with tempfile.TemporaryDirectory() as folder, _timeless(Path(folder, "x"), libver) as file:
        for group in ("layers", "layers/dense", "layers/dense/vars", "optimizer", "optimizer/vars"):
            h5py.h5g.create(file.id, group.encode(), gcpl=_without_times(h5py.h5p.GROUP_CREATE))
        for name in ("layers/dense/vars/0", "optimizer/vars/0"):
            file.create_dataset(name, data=WEIGHT, track_times=False)
        options = {"chunks": (2, 8), "compression": "gzip"}
        file.create_dataset("layers/packed", data=WEIGHT[:2], track_times=False, **options)
        file.attrs["keras_version"] = "3"
        file["layers"].attrs["layer_names"] = np.array([b"dense"])
        file.flush()
        return Path(folder, "x").read_bytes()


def _timeless(path: Path, libver: str) -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    if libver == "latest":
        access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    created = _without_times(h5py.h5p.FILE_CREATE)
    return h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fcpl=created, fapl=access))


def _without_times(kind: Any) -> Any:
    properties = h5py.h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def members(libver: str) -> Files:
    """The members of a Keras archive."""
    config = json.dumps({"class_name": "Sequential", "config": {"layers": []}}).encode()
    return {"metadata.json": b"{}", "config.json": config, "model.weights.h5": hdf5(libver)}


def in_archive(method: int, files: Files) -> Files:
    """An archive of members, whatever they have become."""
    return {"m.keras": handmade.keras_archive(files, method)}


def compressed(blocks: Files) -> Files:
    """The blocks of a checkpoint as snappy has them, without what makes blocks of them."""
    return {**blocks, "entries": handmade.snappied(blocks["entries"])}


def sealed_blocks(files: Files) -> Files:
    """A checkpoint of these, with checksums that fit."""
    packed = sealed(files.get("entries", b""), kind=1)
    index = handmade.with_index(packed, contents([(b"z", handle(0, len(packed) - 5))]))
    return {"c.index": index, "c.data-00000-of-00001": files.get("data", b"")}


def with_constants() -> Files:
    """A SavedModel whose weights are constants, and its fingerprint."""
    print_ = message((1, 5), (2, 6), (5, 7))
    return {"m/saved_model.pb": handmade.saved_graph(), "m/fingerprint.pb": print_}


def shards() -> Files:
    """Weights of Keras in two files, and the list of them."""
    names = {"/layers/dense/vars": ["m_0.weights.h5"], "/layers/dense_1/vars": ["m_1.weights.h5"]}
    listed = json.dumps({"metadata": {}, "weight_map": names}).encode()
    files = {"m.weights.json": listed, "m_0.weights.h5": hdf5("earliest"), "m_1.weights.h5": hdf5("latest")}
    return {f"m/{name}": data for name, data in files.items()}


def whole(found: Topology) -> Files:
    """A topology as it is, without looking at its parts."""
    return {"parts": found.data}


def of_parts(files: Files) -> Topology:
    """The topology that has these bytes."""
    return Topology(ADAPTER.topology_storage_format, files["parts"])


def readers() -> list[Reader]:
    """Every reader of files of TensorFlow, and of their topologies."""
    entries, data = checkpoint(objects())
    blocks = {"entries": entries, "index": pointer(entries), "data": data}
    lite = {"m.tflite": handmade.tflite(operators=3)}
    keras = {"stored": in_archive(0, members("latest")), "deflated": in_archive(8, members("earliest"))}
    honest = {
        "saved model": ("m", saved_model()),
        "checkpoint": ("c.index", index_of(blocks)),
        "keras": ("m.keras", keras["stored"]),
        "tflite": ("m.tflite", lite),
    }
    return [
        Reader("tensorflow/saved model", {"folder": saved_model()}, model(ADAPTER, "m")),
        Reader("tensorflow/checkpoint", {"files": index_of(blocks)}, model(ADAPTER, "c.index")),
        Reader("tensorflow/table", {"blocks": blocks}, model(ADAPTER, "c.index", index_of)),
        Reader("tensorflow/objects", {"graph": {"graph": objects()}}, model(ADAPTER, "c.index", checkpoint_of)),
        Reader("tensorflow/keras", keras, model(ADAPTER, "m.keras")),
        Reader(
            "tensorflow/keras members",
            {libver: members(libver) for libver in ("earliest", "latest")},
            model(ADAPTER, "m.keras", partial(in_archive, 0)),
            _JSON,
            _NAMES,
        ),
        Reader(
            "tensorflow/hdf5",
            {libver: {"m.h5": hdf5(libver)} for libver in ("earliest", "latest")},
            model(ADAPTER, "m.h5"),
        ),
        Reader("tensorflow/tflite", {"model": lite}, model(ADAPTER, "m.tflite")),
        Reader("tensorflow/snappy", {"index": compressed(blocks)}, model(ADAPTER, "c.index", sealed_blocks)),
        Reader("tensorflow/graph", {"frozen": {"m.pb": handmade.graph()}}, model(ADAPTER, "m.pb")),
        Reader("tensorflow/constants", {"folder": with_constants()}, model(ADAPTER, "m")),
        Reader("tensorflow/shards", {"folder": shards()}, model(ADAPTER, "m"), _JSON, _NAMES),
        *topologies(ADAPTER, honest, unpacked, partial(packed, ADAPTER), damages=_JSON),
        *topologies(ADAPTER, {"parts": honest["saved model"]}, whole, of_parts),
    ]
