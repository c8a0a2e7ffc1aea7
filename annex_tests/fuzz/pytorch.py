"""What a fuzz run starts from: small files of PyTorch and safetensors."""

from __future__ import annotations

import json
import struct
from functools import partial

import numpy as np

from annex_tests.fuzz.guard import Box
from annex_tests.fuzz.reading import Files, Reader, model, packed, topologies, unpacked
from annex_tests.support import handmade_pytorch as handmade
from annex_tests.support.handmade_pytorch import DATA, Call, Instance, Reference, Tensor
from conformance.fuzz import damage
from nnc_adapters.base import Options
from nnc_adapters.pytorch import PytorchAdapter

ADAPTER = PytorchAdapter()
OPAQUE = Options(opaque=True)

_JSON = (*damage.ANY, *[damage.with_other_json] * 3)
_NAMES = ("../evil", "/evil", "m/data.pkl", "m/constants.pkl", "m/byteorder", "m/archive_format", "", "x" * 300)
_LONGS = np.arange(-5, 5)
_HALVES = bytes(range(40))


def state():
    """What training saves: weights that share storages, a parameter, an optimizer, and things that are not tensors."""
    shared = Tensor(Reference("1"), shape=(4, 5), strides=(1, 4))
    parameter = Call("torch._utils _rebuild_parameter", Tensor(Reference("1")), True, {})
    return {
        "epoch": 7,
        "model": {
            "w": Tensor(),
            "tied": Tensor(),
            "turned": shared,
            "half": Tensor(Reference("2", 20, "torch BFloat16Storage"), shape=(2, 10), strides=(10, 1)),
            "steps": Tensor(Reference("3", 10, "torch LongStorage"), shape=(10,)),
            "parameter": parameter,
        },
        "optimizer": {"state": {0: {"exp_avg": Tensor(offset=4, shape=(2, 4), strides=(4, 1))}}, "param_groups": []},
        "note": ["ein Text", 1.5, None, (True, 1 << 70), b"bytes"],
    }


STORAGES = {"data/0": DATA, "data/1": DATA[::-1], "data/2": _HALVES, "data/3": _LONGS.tobytes()}
MEMBERS = {"data.pkl": handmade.pickled(state()), "byteorder": b"little", **STORAGES, "version": b"3\n"}
TORCHSCRIPT = {
    "data.pkl": b"\x80\x02c__torch__.Net\nNet\n)\x81}U\x01w" + handmade.pickled(Tensor())[2:-1] + b"sb.",
    "data/0": DATA,
    "constants.pkl": handmade.pickled((Tensor(),)),
    "constants/0": DATA,
    "code/__torch__.py": b"class Net(Module): pass\n",
}
EXPORT = {
    "archive_format": b"pt2",
    "data/weights/weight_0": DATA,
    "data/weights/model_weights_config.json": json.dumps(handmade.CONFIG).encode(),
}


def legacy(protocol: int) -> bytes:
    """The state in a file of before there were archives."""
    items = {"0": (4, DATA), "1": (4, DATA), "2": (2, _HALVES), "3": (8, _LONGS.tobytes())}
    storages = b"".join(struct.pack("<Q", len(data) // size) + data for size, data in items.values())
    return handmade.legacy(handmade.pickled(state(), protocol), tuple(items), storages)


def safetensors() -> tuple[bytes, bytes]:
    """The header and the data of a file."""
    sizes = {
        "w": ("F32", [4, 5], 80),
        "half": ("BF16", [20], 40),
        "steps": ("I64", [10], 80),
        "scalar": ("F8_E4M3", [], 1),
    }
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape, size) in sizes.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return json.dumps(header).encode(), DATA + _HALVES + _LONGS.tobytes() + b"\x38"


def sharded() -> Files:
    """A folder of two shards, the index that lists them, and a companion."""
    entry = {"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}
    names = {"a.weight": "model-1-of-2.safetensors", "b.weight": "model-2-of-2.safetensors"}
    shards = {f"m/{shard}": handmade.safetensors({name: entry}) for name, shard in names.items()}
    index = {"metadata": {"total_size": 160}, "weight_map": names}
    return {**shards, "m/model.safetensors.index.json": json.dumps(index).encode(), "m/config.json": b'{"a": 1}'}


def distributed() -> Files:
    """A checkpoint of two files, in one of which are two pieces."""
    where = "torch.distributed.checkpoint."
    piece = handmade.archive(Tensor())
    places = {"w": ("__0_0.distcp", 0), "optimizer.state.w": ("__0_0.distcp", len(piece)), "v": ("__1_0.distcp", 0)}
    stored = {
        Instance(f"{where}metadata MetadataIndex", fqn=name, index=0, offset=(0,)): Instance(
            f"{where}filesystem _StorageInfo", relative_path=file, offset=at, length=len(piece)
        )
        for name, (file, at) in places.items()
    }
    metadata = Instance(
        f"{where}metadata Metadata",
        state_dict_metadata={name: Instance(f"{where}metadata TensorStorageMetadata", size=(20,)) for name in places},
        planner_data={name: tuple(name.split(".")) for name in places},
        storage_data=stored,
    )
    files = {".metadata": handmade.pickled(metadata), "__0_0.distcp": piece * 2, "__1_0.distcp": piece}
    return {f"m/{name}": data for name, data in files.items()}


def repository() -> Files:
    """A folder as hubs have them: weights in two parts, a description, and a file of anything."""
    entry = {"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}
    weights = handmade.safetensors({"a.weight": entry})
    files = {"model_index.json": b"{}", "vae/model.safetensors": weights, "unet/model.safetensors": weights}
    return {
        f"m/{name}": data for name, data in {**files, "unet/model.bin": handmade.archive(Tensor()), "x": b"y"}.items()
    }


def objects() -> Files:
    """An archive with data of other libraries beside the tensors."""
    where = Instance("argparse Namespace", rate=0.5, weights=Tensor())
    value = {"w": Tensor(), "args": where, "count": Call("collections defaultdict", Call("builtins int"))}
    return {**MEMBERS, "data.pkl": handmade.pickled(value)}


def in_archive(files: Files) -> Files:
    """An archive of members, whatever they have become."""
    return {"m.pt": handmade.zipped(files)}


def with_header(files: Files) -> Files:
    """A file of safetensors, with the size of its header as it is."""
    return {"m.safetensors": handmade.safetensors(files.get("header", b""), files.get("data", b""))}


def opaque(files: Files, box: Box) -> None:
    """Read an archive whose objects, whatever they have become, are carried as they are, and write it again."""
    path = box.put(in_archive(files), "m.pt")
    with box.step():
        found = ADAPTER.read(path, OPAQUE)
        ADAPTER.write(found.tensors, found.topology, box.target("out.pt"), OPAQUE)


def single(name: str, **seeds: bytes) -> dict[str, Files]:
    """Seeds of one file each, called ``name``."""
    return {seed: {name: data} for seed, data in seeds.items()}


def readers() -> list[Reader]:
    """Every reader of files of PyTorch, and of their topologies."""
    header, data = safetensors()
    archives = {"state": MEMBERS, "torchscript": TORCHSCRIPT, "export": EXPORT}
    older = {"data.pkl": handmade.pickled(state(), 0), **STORAGES}
    newer = {"data.pkl": handmade.pickled(state(), 4), **STORAGES}
    zips = {name: handmade.zipped(members) for name, members in archives.items()}
    zips["large"] = handmade.zipped_large(MEMBERS)
    olds = {f"protocol {protocol}": legacy(protocol) for protocol in (0, 2)}
    pickles = {"protocol 0": older, "protocol 4": newer, **archives}
    whole = handmade.safetensors(header, data)
    honest = {
        "archive": ("m.pt", {"m.pt": zips["large"]}),
        "sharded": ("m", sharded()),
        "distributed": ("m", distributed()),
    }
    return [
        Reader("pytorch/archive", single("m.pt", **zips), model(ADAPTER, "m.pt")),
        Reader("pytorch/members", pickles, model(ADAPTER, "m.pt", in_archive), _JSON, _NAMES),
        Reader("pytorch/legacy", single("m.pt", **olds), model(ADAPTER, "m.pt")),
        Reader("pytorch/safetensors", single("m.safetensors", file=whole), model(ADAPTER, "m.safetensors")),
        Reader(
            "pytorch/safetensors header",
            {"file": {"header": header, "data": data}},
            model(ADAPTER, "m.safetensors", with_header),
            _JSON,
        ),
        Reader("pytorch/sharded", {"folder": sharded()}, model(ADAPTER, "m"), _JSON),
        Reader("pytorch/index", {"index": sharded()}, model(ADAPTER, "m/model.safetensors.index.json"), _JSON),
        Reader("pytorch/distributed", {"folder": distributed()}, model(ADAPTER, "m")),
        Reader("pytorch/repository", {"folder": repository()}, model(ADAPTER, "m"), _JSON, _NAMES),
        Reader("pytorch/objects", {"data": objects()}, model(ADAPTER, "m.pt", in_archive)),
        Reader("pytorch/opaque", {"data": objects(), "state": MEMBERS}, opaque),
        *topologies(ADAPTER, honest, unpacked, partial(packed, ADAPTER), damages=_JSON),
    ]
