"""What ``nnc inspect`` shows of a sharded model."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import click

from nnc_adapters.cli import console
from nnc_adapters.sharded.index import Index, Shard

__all__ = ["place", "show"]


def show(index: Index, *, as_json: bool) -> None:
    """List the bitstreams with what they restore; none of them is opened."""
    if as_json:
        console.print_json(json.loads(index.to_json()))
        return
    table = console.table("bitstream", ">bytes", ">ratio", ">tensors", ">bits/w", "~restores")
    for shard in index.shards:
        table.add_row(console.printable(shard.file), *_numbers(shard), console.printable(shard.restores))
    console.print_table(table)
    total, before = (sum(getattr(s, what).size for s in index.shards) for what in ("content", "original"))
    tensors = sum(len(shard.tensors) for shard in index.shards)
    console.message(f"{total} bytes restore {before}, {tensors} tensors; {len(index.kept)} files are kept as they are")


def _numbers(shard: Shard) -> tuple[str, ...]:
    weights = sum(prod(each.shape) for each in shard.tensors.values())
    units = sum(each.size for each in shard.tensors.values())
    ratio = f"{100 * shard.content.size / shard.original.size:.2f} %" if shard.original.size else ""
    return str(shard.content.size), ratio, str(len(shard.tensors)), f"{8 * units / weights:.2f}" if weights else ""


def place(index: Index, tensor: str) -> tuple[Path, str]:
    """The bitstream that has a tensor, and the name that the tensor has there."""
    for shard in index.shards:
        own = tensor.removeprefix(shard.prefix)
        if tensor.startswith(shard.prefix) and own in shard.tensors:
            return index.folder / shard.file, own
    raise click.BadParameter(f"the model has no tensor {tensor!r}", param_hint="--tensor")
