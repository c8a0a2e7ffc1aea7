"""What one bitstream of a set leaves for the next: the model, and of each tensor its last levels, depth and history."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidError
from .headers import DataUnitHeader

Tensors = dict[str, NDArray[Any]]


@dataclass
class Node:
    """The last data unit of a tensor: its place in the parameter update tree, its levels, its payload's digests."""

    device_id: int | None = None
    parameter_id: int | None = None
    put_node_depth: int = 0
    digests: list[str] = field(default_factory=lambda: ["", ""])
    levels: NDArray[np.int32] | None = None
    history: NDArray[np.uint8] | None = None


@dataclass
class State:
    """There is one tree of plain updates, and one of the residuals of predictive coding."""

    model: Tensors = field(default_factory=dict)
    predictions: Tensors = field(default_factory=dict)
    trees: dict[bool, dict[str, Node]] = field(default_factory=lambda: {False: {}, True: {}})

    @classmethod
    def load(cls, folder: Path) -> State:
        """The state in a folder; a fresh one if there is none."""
        state, file = cls(), folder / "state.npz"
        if file.is_file():
            with np.load(file, allow_pickle=False) as archive:
                state._fill({name: archive[name] for name in archive.files})
        return state

    def _fill(self, arrays: Tensors) -> None:
        nodes = json.loads(arrays.pop("nodes").tobytes())
        for residual, name, described in nodes:
            self.trees[residual][name] = Node(**described)
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            if kind in ("model", "predictions"):
                getattr(self, kind)[name] = array
            else:
                what, residual = kind.split("-")
                setattr(self.trees[residual == "residual"][name], what, array)

    def save(self, folder: Path) -> None:
        """Keep the state in a folder."""
        arrays = {f"model/{name}": array for name, array in self.model.items()}
        arrays |= {f"predictions/{name}": array for name, array in self.predictions.items()}
        nodes = []
        for residual, tree in self.trees.items():
            for name, node in tree.items():
                fields = dict(vars(node))
                for what in ("levels", "history"):
                    if (array := fields.pop(what)) is not None:
                        arrays[f"{what}-{'residual' if residual else 'plain'}/{name}"] = array
                nodes.append([residual, name, fields])
        arrays["nodes"] = np.frombuffer(json.dumps(nodes).encode(), np.uint8)
        np.savez(folder / "state.npz", **arrays)  # type: ignore[arg-type]


def check_parent(h: DataUnitHeader, name: str, node: Node) -> None:
    """Check that a unit follows the last one of its tensor."""
    if not h.parent_node_id_present_flag:
        return
    if h.put_node_depth is not None and h.put_node_depth != node.put_node_depth + 1:
        raise InvalidError(f"{name}: update {h.put_node_depth} comes after update {node.put_node_depth}")
    if h.parent_node_id_type and node.digests[h.parent_node_id_type - 1] != h.parent_hash.hex():
        raise InvalidError(f"{name}: the update builds on a unit with another payload than the last one")
    for element in ("device_id", "parameter_id"):
        found, known = getattr(h, element), getattr(node, element)
        if node.put_node_depth and None not in (found, known) and found != known:
            raise InvalidError(f"{name}: {element} is {found}, that of the update before is {known}")


def node_after(h: DataUnitHeader, node: Node, levels: NDArray[np.int32], payload: bytes) -> Node:
    """What a unit leaves; only updates leave levels and a history, the base model does not."""
    depth = node.put_node_depth + h.parent_node_id_present_flag if h.put_node_depth is None else h.put_node_depth
    update = h.parent_node_id_present_flag or depth > 0
    history = (levels != 0).astype(np.uint8)
    if node.history is not None:
        history |= node.history
    hashes: tuple[Callable[[bytes], Any], ...] = (sha256, sha512)
    return Node(
        node.device_id if h.device_id is None else h.device_id,
        node.parameter_id if h.parameter_id is None else h.parameter_id,
        depth,
        [made(payload).hexdigest() for made in hashes],
        levels if update else None,
        history if update else None,
    )
