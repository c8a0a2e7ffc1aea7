"""What tests of hostile containers have in common."""

from __future__ import annotations

import numpy as np

import nnc_core
from nnc_adapters import containers
from nnc_adapters.containers import CONTAINERS
from nnc_core.bitstream.parts import split
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

CONTAINER = {container.name: container for container in CONTAINERS}
FILES = [name for name in CONTAINER if name not in ("folder", "hdf5")]
TENSORS = {"a": np.arange(20, dtype=np.float32), "b/c": np.zeros((4, 5), np.float32), "d": np.arange(9)}
CODED = nnc_core.encode(TENSORS, topology=Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"graph"))
NNR = split(CODED)["a"]
SIZE = len(NNR)
BIG = 1 << 62


def read_all(name, path, limits=None):
    with CONTAINER[name].open(path, limits) as items:
        return {key: bytes(items[key]) for key in items}


def written(name, tmp_path, per_tensor=True):
    """An honest container."""
    (tmp_path / "coded.nnr").write_bytes(CODED)
    containers.embed(tmp_path / "coded.nnr", tmp_path / "honest", container=name, per_tensor=per_tensor, force=True)
    return tmp_path / "honest"


def mutated(data, rng):
    """Bytes flipped, set to extremes, removed, doubled, or moved."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, kind = rng.randrange(len(result)), rng.randrange(6)
        if kind < 2:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            result[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif kind == 3:
            del result[at : at + rng.choice((1, 4, 16))]
        elif kind == 4:
            result[at:at] = result[at : at + rng.choice((1, 8, 40))]
        else:
            result[at] = rng.randrange(256)
        result = result or bytearray(b"\0")
    return bytes(result)
