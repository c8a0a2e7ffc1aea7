"""A model as its parameters: what each tensor is, how it is laid out, and which parts it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nnc_adapters.base import Adapter
from nnc_adapters.convert import graphs, names
from nnc_adapters.convert.layouts import CHANNELS_LAST, LAYOUTS, Framework, Layout, Part, Same, Shape
from nnc_adapters.shared.dtypes import FLOATS
from nnc_adapters.tensorflow.manifest import unpack
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

__all__ = ["UNKNOWN", "Network", "Parameter", "PartOf", "describe"]

UNKNOWN = "unknown in"
"""How the role of a part begins of which nothing is known but where it comes from."""


class PartOf(NamedTuple):
    """One part of a tensor, by the tensor's name and the part's place in it."""

    name: str
    place: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of floating-point numbers; ``kind`` is a row of `LAYOUTS`, None where it is not known."""

    name: str
    shape: Shape
    kind: str | None
    layout: Layout
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """The parameters of a model in its own order; ``framework`` is None where it is not known."""

    framework: Framework | None
    parameters: Mapping[str, Parameter]

    @property
    def channels_last(self) -> bool:
        """Whether images have their channels in the last dimension."""
        return self.framework in CHANNELS_LAST

    def parts(self) -> dict[PartOf, Part]:
        """Every part of every parameter, in order."""
        return {PartOf(p.name, k): part for p in self.parameters.values() for k, part in enumerate(p.parts)}


def describe(model: SourceModel, adapter: Adapter, limits: Limits) -> Network:
    """The parameters of a model that ``adapter`` has read."""
    family = _family(model, adapter, limits)
    framework = next((known for known in LAYOUTS if known == family), None)
    arrays = ((name, model.tensors[name]) for name in model.tensors)
    shapes = {name: array.shape for name, array in arrays if array.dtype.name in FLOATS}
    kinds = _kinds(adapter, framework, model, shapes, limits)
    return Network(framework, {n: _parameter(n, shapes[n], kind, framework, family) for n, kind in kinds.items()})


def _family(model: SourceModel, adapter: Adapter, limits: Limits) -> str:
    """Which layouts to expect: TFLite has its own, which only its graph could tell."""
    if adapter.name == "tensorflow" and model.topology is not None:
        return "tflite" if unpack(model.topology.data, limits).kind == "tflite" else adapter.name
    return adapter.layout or adapter.name


def _kinds(
    adapter: Adapter, framework: Framework | None, model: SourceModel, shapes: Mapping[str, Shape], limits: Limits
) -> Mapping[str, str | None]:
    if adapter.layout:
        kinds = adapter.kinds(model)
        return {name: kinds.get(name) for name in shapes}
    if framework == "pytorch":
        return names.pytorch_kinds(shapes)
    if framework == "tensorflow":
        return names.tensorflow_kinds(shapes, model.model_info)
    if framework == "onnx" and model.topology is not None:
        return graphs.onnx_kinds(model.topology.data, shapes, limits)
    if framework == "nnef" and model.topology is not None:
        return graphs.nnef_kinds(model.topology.data.decode("utf-8", "replace"), shapes)
    return dict.fromkeys(shapes)


def _parameter(name: str, shape: Shape, kind: str | None, framework: Framework | None, family: str) -> Parameter:
    if framework is not None and kind is not None:
        try:
            layout = LAYOUTS[framework][kind]
            return Parameter(name, shape, kind, layout, tuple(layout.parts(shape)))
        except (KeyError, ValueError):  # it is called like something that it cannot be
            pass
    # the same where both models are of one family and call it by one name
    unknown = Same(f"{UNKNOWN} {family}")
    return Parameter(name, shape, None, unknown, tuple(unknown.parts(shape)))
