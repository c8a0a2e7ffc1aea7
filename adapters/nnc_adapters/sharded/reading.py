"""A sharded model as a mapping of tensors: only the bitstream that a tensor is in is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

import nnc_core
from nnc_adapters.sharded.index import Index, Shard, Stored, read_index
from nnc_core import Limits, ModelError, NnrFile
from nnc_core.file import TensorSlice
from nnc_core.lazy import LazyMapping

__all__ = ["ShardedFile", "open_sharded"]


class ShardedFile(LazyMapping[NDArray[Any]]):
    """The tensors of a sharded model by their names in the whole, each decoded when it is asked for.

    Made by `open_sharded`. ``index`` says what is where, ``tensors`` describes the tensors; neither opens a bitstream.
    """

    def __init__(self, index: Index, limits: Limits | None = None) -> None:
        self.index = index
        self._limits = limits
        self._files: dict[str, NnrFile] = {}
        self._places = {shard.prefix + name: (shard, name) for shard in index.shards for name in shard.tensors}

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """The type, shape and size of each tensor."""
        return MappingProxyType({name: shard.tensors[own] for name, (shard, own) in self._places.items()})

    def shard(self, file: str) -> NnrFile:
        """One of the bitstreams, by the name of its file; KeyError if there is none, `ModelError` if it was changed."""
        return self._opened({shard.file: shard for shard in self.index.shards}[file])

    def _opened(self, shard: Shard) -> NnrFile:
        """The bitstream; its size is compared with the index, its digest by `nnc_adapters.sharded.verify`."""
        if shard.file not in self._files:
            path = self.index.folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.content.size:
                raise ModelError("is not the file that the index lists", file=str(path))
            self._files[shard.file] = nnc_core.open(path, limits=self._limits)
        return self._files[shard.file]

    def __getitem__(self, name: str) -> NDArray[Any]:
        shard, own = self._places[name]
        return self._opened(shard).decode(own)

    def get_tensor(self, name: str) -> NDArray[Any]:
        """The same, under the name that users of safetensors know."""
        return self[name]

    def get_slice(self, name: str) -> TensorSlice:
        """A tensor that is decoded when a part of it is taken; KeyError for a name that is not in the model."""
        shard, own = self._places[name]
        return self._opened(shard).get_slice(own)

    def _names(self) -> Collection[str]:
        return self._places

    def __enter__(self) -> ShardedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bitstreams that were opened."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def open_sharded(source: str | Path, *, limits: Limits | None = None) -> ShardedFile:
    """Open the sharded model at ``source``, a folder or its index, without opening any bitstream.

    `ModelError` where there is no index, or it contradicts itself.
    """
    return ShardedFile(read_index(Path(source), limits), limits)
