"""The values of an ONNX graph: what they are, and their shapes as far as these can be inferred."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Trace, Traced
from nnc_adapters.onnx import stubs

__all__ = ["Call", "Graph", "Handler", "Weight"]

Shape = tuple[int, ...]
_OTHER_SIZE = 8


@dataclass(frozen=True)
class Weight:
    """A tensor, perhaps transposed, in the shape that it has where it is used."""

    name: str
    shape: Shape
    transposed: bool = False


class Graph:
    """Names of values, and what they are."""

    def __init__(self, model: ModelProto, shapes: Mapping[str, Shape], handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers
        self.result = Described()
        self.known: dict[str, Traced | Weight] = {}
        self.constants: dict[str, Any] = {}
        for tensor in (*model.graph.initializer, *_constants(model)):
            self._add(tensor, shapes)
        weights = {tensor.name for tensor in model.graph.initializer}
        self.shapes = _inferred(model)
        for value in model.graph.input:
            if value.name not in weights:
                self.known[value.name] = self.result.trace.input(self.shapes.get(value.name, ()))

    def _add(self, tensor: TensorProto, shapes: Mapping[str, Shape]) -> None:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        if stubs.is_stub(copy):
            name, _ = stubs.undo(copy)
            if name in shapes:
                self.known[tensor.name] = Weight(name, tuple(tensor.dims))
        elif tensor.data_location != TensorProto.EXTERNAL and prod(tensor.dims) <= 1 << 10:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # of no known type, or not as many as it says
                self.constants[tensor.name] = numpy_helper.to_array(tensor)

    def follow(self, node: NodeProto) -> None:
        """Run one operation."""
        inputs = [self.known.get(name) if name else None for name in node.input]
        if all(value is None for value in inputs) or node.op_type in ("Shape", "Size", "Constant"):
            return
        call = Call(self, node, inputs)
        handler = self.handlers.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            found = handler(call) if handler else None
        except (LookupError, ValueError, TypeError, AttributeError):
            found = None
        if found is None:
            values = [call.value(k) for k, value in enumerate(inputs) if value is not None]
            step = node.op_type.lower()
            found = [self.result.trace.opaque(values, self.shapes.get(n, ()), step) for n in node.output]
        for name, value in zip(node.output, found if isinstance(found, list) else [found], strict=False):
            self.known[name] = value


@dataclass
class Call:
    """An operation with what its inputs are."""

    graph: Graph
    node: NodeProto
    inputs: list[Traced | Weight | None]

    @property
    def trace(self) -> Trace:
        """The trace of the graph."""
        return self.graph.result.trace

    @property
    def shape(self) -> Shape:
        """The shape of the first output; KeyError where it is not known."""
        return self.graph.shapes[self.node.output[0]]

    def get(self, slot: int) -> Traced | Weight | None:
        """What an input is; None for one that is constant or not there."""
        return self.inputs[slot] if slot < len(self.inputs) else None

    def value(self, slot: int) -> Traced:
        """An input as a value; LookupError for none."""
        found = self.get(slot)
        if isinstance(found, Weight) and prod(found.shape) == 1:
            return Traced(tuple(Axis(1) for _ in found.shape))  # a number, not a weight
        if isinstance(found, Weight):
            return self.trace.constant(self.graph.result.part(found.name, "bias"), found.shape)
        if found is None:
            raise LookupError
        return found

    def weight(self, slot: int) -> Weight | None:
        """An input that is a weight."""
        found = self.get(slot)
        return found if isinstance(found, Weight) else None

    def part(self, slot: int, kind: str, place: int = 0) -> PartOf | None:
        """A part of an input that is a weight."""
        weight = self.weight(slot)
        return None if weight is None else self.graph.result.part(weight.name, kind, place)

    def needed(self, slot: int, kind: str, place: int = 0) -> PartOf:
        """A part of an input that has to be a weight; LookupError for none."""
        found = self.part(slot, kind, place)
        if found is None:
            raise LookupError
        return found

    def constant(self, slot: int) -> Any:
        """The numbers of a constant input; None if it is not constant."""
        names = self.node.input
        return self.graph.constants.get(names[slot]) if slot < len(names) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the operation."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None or found.type == AttributeProto.GRAPH else helper.get_attribute_value(found)

    def axes(self, slot: int) -> list[int] | None:
        """Axes that are an attribute, or a constant input."""
        given = self.attribute("axes")
        found = given if given is not None else self.constant(slot)
        return None if found is None else [int(axis) for axis in np.ravel(found)]


def _constants(model: ModelProto) -> list[TensorProto]:
    found = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                tensor = _constant(attribute)
                if tensor is not None:
                    tensor.name = node.output[0]
                    found.append(tensor)
    return found


def _constant(attribute: AttributeProto) -> TensorProto | None:
    if attribute.name == "value" and attribute.HasField("t"):
        copy = TensorProto()
        copy.CopyFrom(attribute.t)
        return copy
    if attribute.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), np.int64))
    return None


def _inferred(model: ModelProto) -> dict[str, Shape]:
    """The shapes of all values that have one, with one image or sequence in a batch."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_value = 1 if place == 0 else _OTHER_SIZE
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy = shape_inference.infer_shapes(copy, data_prop=True)
    except Exception:  # of many types; without shapes less is known
        pass
    values = (*copy.graph.input, *copy.graph.output, *copy.graph.value_info)
    found = {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}
    return {
        name: tuple(dim.dim_value for dim in kind.shape.dim)
        for name, kind in found.items()
        if kind.HasField("shape") and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in kind.shape.dim)
    }


Handler = Callable[[Call], "Traced | Weight | list[Traced] | None"]
"""What an operation makes of its inputs; None if that is not known."""
