"""The modules of a model as a tree, with what their tensors take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from math import prod
from typing import Any

from nnc_adapters.cli import console
from nnc_core import NnrFile, TensorInfo
from nnc_core.records import dataclass

__all__ = ["show"]

_OTHERS = "(other units)"
_DEEPEST = 40


@dataclass(slots=True)
class Node:
    """A module, or a tensor, with the bytes and numbers of all that is in it."""

    name: str
    size: int = 0
    elements: int = 0
    inside: dict[str, Node] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Bits for each number; 0 where there is none."""
        return 8 * self.size / self.elements if self.elements else 0.0


_ORDERS: Mapping[str, Callable[[Node], Any]] = {
    "size": lambda node: -node.size,
    "name": lambda node: node.name,
    "bits": lambda node: -node.rate,
}


def show(file: NnrFile, title: str, *, sort: str, depth: int | None, as_json: bool) -> None:
    """Print the tree of a bitstream; siblings are in the order of their first units unless ``sort`` says another."""
    root = _tree(file, title)
    if as_json:
        console.print_json(root)
        return
    table = console.table(">bytes", ">share", "size", ">bits/w", "~module")
    for node, stem in _lines(root, _ORDERS.get(sort), depth):
        share = f"{100 * node.size / max(root.size, 1):.1f} %"
        bits = f"{node.rate:.2f}" if node.elements else ""
        table.add_row(
            str(node.size), share, console.bar(node.size, root.size), bits, stem + console.printable(node.name)
        )
    console.print_table(table)


def _tree(file: NnrFile, title: str) -> Node:
    root = Node(title)
    for info, size in _sizes(file.tensors.values()):
        _put(root, re.split(r"[./:]+", info.name, maxsplit=_DEEPEST), size, prod(info.shape))
    rest = sum(unit.size for unit in file.units if unit.within is None) - root.size
    _put(root, [_OTHERS], rest, 0)
    return root


def _put(root: Node, path: Iterable[str], size: int, elements: int) -> None:
    node = root
    for part in (None, *path):
        node = node if part is None else node.inside.setdefault(part, Node(part))
        node.size += size
        node.elements += elements


def _sizes(infos: Iterable[TensorInfo]) -> Iterator[tuple[TensorInfo, int]]:
    """The bytes of each tensor; those of a block share them by their elements."""
    blocks: dict[int, list[TensorInfo]] = {}
    for info in infos:
        blocks.setdefault(info.unit, []).append(info)
    for block in blocks.values():
        left, elements = block[0].size, sum(prod(info.shape) for info in block)
        for info in block:
            part = left * prod(info.shape) // max(elements, 1) if elements != prod(info.shape) else left
            left, elements = left - part, elements - prod(info.shape)
            yield info, part


def _lines(
    node: Node, order: Callable[[Node], Any] | None, depth: int | None, stem: str = ""
) -> Iterator[tuple[Node, str]]:
    """Every node with the lines that lead to it."""
    yield node, stem
    if depth == 0:
        return
    children = list(node.inside.values()) if order is None else sorted(node.inside.values(), key=order)
    before = stem.replace("\u251c\u2500 ", "\u2502  ").replace("\u2514\u2500 ", "   ")
    for child in children:
        branch = "\u2514\u2500 " if child is children[-1] else "\u251c\u2500 "
        yield from _lines(child, order, None if depth is None else depth - 1, before + branch)
