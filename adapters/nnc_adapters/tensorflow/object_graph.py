"""The graph of Python objects in a checkpoint: what the variables were called, and which an optimizer keeps for itself.

The weights of a model can hang below its optimizer as well (a saved Keras 3 model names them only there), so that the
name of a variable alone does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from nnc_adapters.shared import protobuf
from nnc_adapters.tensorflow.messages import Message
from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["KEY", "Variables", "read"]

KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
"""The name of the tensor in which a checkpoint has its graph."""

# fields of TrackableObjectGraph and the messages inside it
_NODES = 1
_CHILDREN, _ATTRIBUTES, _SLOTS = 1, 2, 3
_CHILD_NODE, _CHILD_NAME = 1, 2
_FULL_NAME, _CHECKPOINT_KEY = 2, 3
_SLOT_NODE = 3

_OWN = "_variables"
_OPTIMIZER = {"_iterations", "_learning_rate"}


@dataclass(frozen=True, slots=True)
class Variables:
    """``full_names`` of checkpoint keys, and the keys of an ``optimizer``'s own variables."""

    full_names: dict[str, str] = field(default_factory=dict)
    optimizer: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Node:
    children: dict[str, int]
    full_names: dict[str, str]
    slots: list[int]


def read(data: bytes) -> Variables:
    """Read a serialized graph; `ModelError` where it is damaged."""
    try:
        nodes = [_node(message) for message in Message(memoryview(data)).messages(_NODES)]
    except protobuf.WireError as error:
        raise ModelError(f"the object graph is damaged: {error}") from error
    names = {key: name for node in nodes for key, name in node.full_names.items()}
    own = {key for index in set(_optimizer_nodes(nodes)) if index < len(nodes) for key in nodes[index].full_names}
    return Variables(names, frozenset(own))


def _optimizer_nodes(nodes: list[_Node]) -> Iterator[int]:
    for node in nodes:
        yield from node.slots
        own = node.children.get(_OWN, len(nodes))
        if own < len(nodes) and _OPTIMIZER & node.children.keys():
            yield from nodes[own].children.values()


def _node(message: Message) -> _Node:
    return _Node(
        {child.text(_CHILD_NAME): child.number(_CHILD_NODE) for child in message.messages(_CHILDREN)},
        {part.text(_CHECKPOINT_KEY): part.text(_FULL_NAME) for part in message.messages(_ATTRIBUTES)},
        [slot.number(_SLOT_NODE) for slot in message.messages(_SLOTS)],
    )
