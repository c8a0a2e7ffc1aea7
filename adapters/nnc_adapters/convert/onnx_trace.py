"""The trace of an ONNX graph, from its operations and the shapes that can be inferred."""

from __future__ import annotations

from collections.abc import Mapping

from nnc_adapters.convert.described import Described
from nnc_adapters.convert.onnx_operations import HANDLERS
from nnc_adapters.convert.onnx_values import Graph
from nnc_adapters.convert.trace import Traced
from nnc_adapters.onnx.reader import parsed

__all__ = ["describe_graph"]


def describe_graph(topology: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Described:
    """Follow the main graph; what is not understood is opaque."""
    model = parsed(topology)
    graph = Graph(model, shapes, HANDLERS)
    for node in model.graph.node:
        graph.follow(node)
    for output in model.graph.output:
        found = graph.known.get(output.name)
        if isinstance(found, Traced):
            graph.result.trace.result(found)
    return graph.result
