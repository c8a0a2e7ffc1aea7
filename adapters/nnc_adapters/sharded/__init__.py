"""Models of several files, each coded by itself: on any number of machines, in part, and again from where it stopped.

::

    llama.nnr/
        model-00001-of-00003.nnr     a bitstream for each file of weights, which restores this file
        model-00002-of-00003.nnr
        model-00003-of-00003.nnr
        model.nnr.index.json         which tensor is in which bitstream; sizes and digests
        config.json                  what has no weights, as it is

What a worker is sent is a few kilobytes: it opens and reads the file it works on by itself, and writes one file. The
output does not depend on how many workers there are, or on which machine they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_adapters.sharded.coding import compress
    from nnc_adapters.sharded.executors import dask_executor, process_executor, ray_executor
    from nnc_adapters.sharded.index import Index, Shard, read_index
    from nnc_adapters.sharded.names import INDEX, index_of, is_sharded
    from nnc_adapters.sharded.reading import ShardedFile, open_sharded
    from nnc_adapters.sharded.restoring import decompress
    from nnc_adapters.sharded.verifying import verify
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "coding": ("compress",),
            "executors": ("dask_executor", "process_executor", "ray_executor"),
            "index": ("Index", "Shard", "read_index"),
            "names": ("INDEX", "index_of", "is_sharded"),
            "reading": ("ShardedFile", "open_sharded"),
            "restoring": ("decompress",),
            "verifying": ("verify",),
        },
    )

__all__ = [
    "INDEX",
    "Index",
    "Shard",
    "ShardedFile",
    "compress",
    "dask_executor",
    "decompress",
    "index_of",
    "is_sharded",
    "open_sharded",
    "process_executor",
    "ray_executor",
    "read_index",
    "verify",
]
