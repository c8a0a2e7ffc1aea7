"""From the files of models to their networks: what a file says about its weights, and what its module says, if there is
one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters import api
from nnc_adapters.base import ANY_SIZE, Adapter, Options
from nnc_adapters.convert.checking import examples, layouts
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.keras_trace import describe_keras
from nnc_adapters.convert.layouts import CHANNELS_LAST, Framework, framework
from nnc_adapters.convert.naming import layers_by_bias, plain
from nnc_adapters.convert.network import Network, network
from nnc_adapters.convert.parts import Shape
from nnc_adapters.convert.running import CannotRun, Input, Runner, load_module, runner
from nnc_adapters.convert.trace import Trace
from nnc_adapters.shared.kinds import shapes_of
from nnc_adapters.tensorflow.keras_files import KERAS, KerasModel, read_keras
from nnc_adapters.tensorflow.manifest import Manifest, unpack
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel
from nnc_core.tables.code_points import TopologyStorageFormat as Format

__all__ = ["Model"]

Array = NDArray[Any]

_JOINT = {"projections": "dense", "projection_biases": "bias"}


@dataclass(frozen=True)
class Model:
    """A model whose floats are all among its tensors, the file it was read from, and its module, if this is known."""

    file: Path
    adapter: Adapter
    content: SourceModel
    limits: Limits
    module: Any = None
    declared: tuple[Input, ...] = ()
    notes: list[str] = field(default_factory=list)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes of the tensors of floats."""
        return shapes_of(self.content)

    @cached_property
    def half(self) -> bool:
        """Whether any tensor is of half precision."""
        return any(self.content.tensors[name].dtype.name in ("float16", "bfloat16") for name in self.shapes)

    @cached_property
    def kind(self) -> str:
        """Which kind of file this is, of those that an adapter reads."""
        return self._manifest.kind if self._manifest else self.adapter.name

    @cached_property
    def _manifest(self) -> Manifest | None:
        """The files of a model of TensorFlow or Keras."""
        topology = self.content.topology
        if topology is None or topology.storage_format != Format.NNR_TPL_TEF:
            return None
        return unpack(topology.data, ANY_SIZE)

    @property
    def suffix(self) -> str:
        """How the names of other files of this format end; empty for a folder."""
        topology = self.content.topology
        return self.adapter.default_suffix(topology) if topology else self.file.suffix

    @property
    def framework(self) -> Framework | None:
        """Whose layouts to expect."""
        topology = self.content.topology
        return framework(self.adapter.layout_of(topology) if topology else self.adapter.layout)

    @cached_property
    def network(self) -> Network:
        """What the file alone says."""
        try:
            described, layers = self._described()
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # a graph that no framework makes: names are left
            self.notes.append(f"{self.file.name}: its graph is not understood ({type(error).__name__})")
            described, layers = None, {}
        return self._network(described, layers)

    def networks(self, beside: Model) -> list[Network]:
        """What the file says, or its module, which takes the same inputs as the model ``beside`` it."""
        if self.framework != "pytorch":
            return [self.network]
        if self.module is not None:
            found = [described for joint in (False, True) if (described := self._traced(beside, joint)) is not None]
            if found:
                return [self._network(described, {}) for described in found]
        if "projections" not in self._kinds.values():
            return [self.network]
        joint = {name: _JOINT.get(kind or "", kind) for name, kind in self._kinds.items()}
        return [self.network, network(self.framework, self.adapter.name, self.shapes, joint)]

    @cached_property
    def _keras(self) -> KerasModel | None:
        return read_keras(self._manifest, self.shapes) if self._manifest and self.kind in KERAS else None

    def _network(self, described: Described | None, layers: Mapping[str, str]) -> Network:
        family = "tflite" if self.kind == "tflite" else self.adapter.name
        return network(self.framework, family, self.shapes, self._kinds, described, layers)

    @cached_property
    def _kinds(self) -> Mapping[str, str | None]:
        """What the adapter says that tensors are."""
        return self.adapter.kinds(self.content)

    def _described(self) -> tuple[Described | None, Mapping[str, str]]:
        topology = self.content.topology
        if topology is not None and topology.storage_format == Format.NNR_TPL_ONNX:
            from nnc_adapters.convert.onnx_trace import describe_graph

            found = describe_graph(topology.data, self.shapes)
            return found, layers_by_bias(found.trace)
        if self._keras is not None:
            groups = self._keras.variables.groups.items()
            layers = {name: ".".join(path) for path, members in groups for name in members.values()}
            return describe_keras(self._keras), layers
        if self.kind == "tflite":
            from nnc_adapters.convert.tflite_trace import describe_tflite

            return describe_tflite(self.file, self.shapes, self.limits), {}
        return None, {}

    def _traced(self, beside: Model, joint: bool) -> Described | None:
        from nnc_adapters.convert.torch_trace import describe_module

        known = {plain(name): name for name in self.shapes}
        own = {
            **{n: n for n in self.shapes},
            **{n: known[plain(n)] for n, _ in _named(self.module) if plain(n) in known},
        }
        problem = "its inputs are not known; --input 1,3,224,224 gives their shapes"
        for arrays in self._inputs(beside):
            try:
                return describe_module(self.module, arrays, own, joint=joint)
            except Exception as error:  # noqa: PERF203  (whatever a module raises)
                problem = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0][:200]
        self.notes.append(f"the module could not be followed: {problem}")
        return None

    def inputs(self, beside: Model) -> tuple[Input, ...]:
        """What the model takes, by its file, or what the model ``beside`` it takes."""
        known = self.declared or beside.declared or _declared(self.network.trace) or _declared(beside.network.trace)
        return known or beside.runnable_inputs

    @cached_property
    def runnable_inputs(self) -> tuple[Input, ...]:
        """What the model takes when it is run; nothing where it cannot be."""
        try:
            return self.runner().inputs or ()
        except CannotRun:
            return ()

    def _inputs(self, beside: Model) -> list[list[Any]]:
        """Inputs in the layouts that the module could want, the most likely ones first."""
        import torch

        given = examples(self.inputs(beside), self.rows)
        if not given:
            return []
        first = [preferred(beside.network, self.framework, k, array) for k, array in enumerate(given)]
        other = [layouts(array) for array in given]
        more = [[options[min(k, len(options) - 1)] for options in other] for k in (1, 2, 0)]
        choices = [given] if self.declared else [first, *more]
        return [[torch.from_numpy(np.ascontiguousarray(array)) for array in arrays] for arrays in choices]

    @cached_property
    def rows(self) -> int:
        """How many rows the smallest table has whose rows inputs choose."""
        parameters = self.network.parameters.values()
        tables = [p.shape[0] for p in parameters if p.kind == "embedding" and len(p.shape) == 2]
        matrices = [p.shape[0] for p in parameters if p.kind == "dense" and len(p.shape) == 2 and p.assumed]
        return min(tables or matrices or [2])

    def runner(self, file: Path | None = None, tensors: Mapping[str, Array] | None = None) -> Runner:
        """The model, as in another ``file`` like its own, or with other ``tensors``; `CannotRun` with a reason."""
        if self.framework == "pytorch" and self.module is not None:
            own = tensors if tensors is not None else self._tensors(file)
            try:
                return runner(self.file, "pytorch", self.kind, load_module(self.module, own))
            except ModelError as error:
                raise CannotRun(str(error)) from error
        return runner(file or self.file, self.adapter.name, self.kind)

    def _tensors(self, file: Path | None) -> Mapping[str, Array]:
        if file is None:
            return self.content.tensors
        return self.adapter.read(file, Options(self.limits, all_floats=True)).tensors

    def write(self, tensors: Mapping[str, Array], path: Path, *, force: bool) -> None:
        """Write the model with other ``tensors``."""
        api.write_into(self.adapter, tensors, self.file, path, Options(self.limits, all_floats=True), force=force)


def _named(module: Any) -> list[tuple[str, Any]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def _declared(trace: Trace | None) -> tuple[Input, ...]:
    values = trace.inputs if trace else []
    return tuple(Input(value.shape, k in trace.indices) for k, value in enumerate(values)) if trace else ()


def preferred(known: Network, wanted: Framework | None, place: int, array: Array) -> Array:
    """An input of a ``known`` network as a framework would have it: channels are where it has them."""
    inputs: Sequence[Any] = known.trace.inputs if known.trace else ()
    axes = inputs[place].axes if place < len(inputs) else ()
    channels = [k for k, axis in enumerate(axes) if [leaf.tag for leaf in axis.leaves()] == ["c"]]
    if len(axes) != array.ndim or len(channels) != 1:
        return array
    return np.moveaxis(array, channels[0], -1 if wanted in CHANNELS_LAST else 1)
