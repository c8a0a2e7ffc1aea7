"""The trace of a Keras model, from its configuration: sequential, functional, nested; nothing of Keras is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnc_adapters.convert.described import Described
from nnc_adapters.convert.keras_layers import LAYERS, Layer
from nnc_adapters.convert.trace import Traced
from nnc_adapters.tensorflow.keras_files import KerasModel, Path

__all__ = ["describe_keras"]

_MODELS = ("Functional", "Model", "Sequential")
_LONG, _SHORT = 64, 8
_DEPTH = 16


def describe_keras(model: KerasModel) -> Described | None:
    """Follow a model through its layers; None where the configuration does not say what follows what."""
    config = model.config
    if config is None or config.get("class_name") not in _MODELS:
        return None
    run = _Run(model, Described())
    try:
        for value in run.model(config, (), None):
            run.result.trace.result(value)
    except (AttributeError, IndexError, KeyError, LookupError, TypeError, ValueError):
        return None
    return run.result


@dataclass
class _Run:
    source: KerasModel
    result: Described
    depth: int = 0

    def model(self, config: Mapping[str, Any], path: Path, inputs: list[Traced] | None) -> list[Traced]:
        """The results of a model, whose layers are below ``path``."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise ValueError("models are nested too deeply")
        content = config["config"]
        if config["class_name"] == "Sequential":
            found = self._sequential(content if isinstance(content, list) else content["layers"], path, inputs, content)
        else:
            found = self._functional(content, path, inputs)
        self.depth -= 1
        return found

    def _sequential(
        self, layers: Sequence[Mapping[str, Any]], path: Path, inputs: list[Traced] | None, content: Any
    ) -> list[Traced]:
        values = inputs
        for layer in layers:
            if layer["class_name"] == "InputLayer" and inputs is not None:
                continue
            if values is None:
                values = [self._input(layer, content)]
                if layer["class_name"] == "InputLayer":
                    continue
            values = self.layer(layer, path, values, {}, None)
        return values or []

    def _input(self, layer: Mapping[str, Any], content: Any) -> Traced:
        config = layer["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        if shape is None and layer["class_name"] in _MODELS:
            return self._input(config["layers"][0], config)
        if shape is None:
            built = layer.get("build_config") or {}
            shape = built.get("input_shape") or (
                content.get("build_input_shape") if isinstance(content, dict) else None
            )
        return self.result.trace.input(_sizes(shape))

    def _functional(self, content: Mapping[str, Any], path: Path, inputs: list[Traced] | None) -> list[Traced]:
        layers = {layer["name"]: layer for layer in content["layers"]}
        values: dict[tuple[str, int], list[Traced]] = {}
        for place, (name, _, _) in enumerate(_references(content["input_layers"])):
            values[name, 0] = [inputs[place] if inputs is not None else self._input(layers[name], content)]
        pending = [(name, k, call) for name in layers for k, call in enumerate(_calls(layers[name]))]
        pending = [(name, k, call) for name, k, call in pending if (name, k) not in values]
        shapes = _shapes(content["layers"])
        while pending:
            ready = [p for p in pending if all((name, node) in values for name, node, _ in p[2].references)]
            if not ready:
                raise ValueError("layers wait for each other")
            for name, k, call in ready:
                given = {reference: values[reference[:2]][reference[2]] for reference in call.references}
                arguments = [given[reference] for reference in call.positional]
                keywords = {key: given[reference] for key, reference in call.keywords.items()}
                values[name, k] = self.layer(layers[name], path, arguments, keywords, shapes.get((name, k)), call)
            done = {(name, k) for name, k, _ in ready}
            pending = [p for p in pending if p[:2] not in done]
        return [values[name, node][place] for name, node, place in _references(content["output_layers"])]

    def layer(
        self,
        layer: Mapping[str, Any],
        path: Path,
        values: list[Traced],
        keywords: Mapping[str, Traced],
        shape: tuple[int, ...] | None,
        call: Any = None,
    ) -> list[Traced]:
        """The results of a layer; opaque where it is not known."""
        name = layer["class_name"]
        path = (*path, layer["config"]["name"] if isinstance(layer["config"], dict) else layer.get("name", ""))
        if name in _MODELS:
            return self.model(layer, path, values)
        found = Layer(self, self.result, self.source.variables, layer["config"], path, values, keywords, shape, call)
        if name in LAYERS:
            try:
                return LAYERS[name](found)
            except (LookupError, ValueError, TypeError):
                pass
        if shape is None and self.source.variables.below(path):
            raise ValueError(f"a layer of the class {name}")
        return [self.result.trace.opaque([*values, *keywords.values()], shape or values[0].shape, name.lower())]


@dataclass(frozen=True)
class _Call:
    """What a layer was called with: references to layer, node and place."""

    positional: list[tuple[str, int, int]]
    keywords: dict[str, tuple[str, int, int]]
    constants: list[Any] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def references(self) -> list[tuple[str, int, int]]:
        return [*self.positional, *self.keywords.values()]


def _calls(layer: Mapping[str, Any]) -> Iterator[_Call]:
    for node in layer.get("inbound_nodes", []):
        if isinstance(node, Mapping):
            keywords = node.get("kwargs") or {}
            yield _Call(
                [reference for reference, _ in _tensors(node.get("args", []))],
                {key: found[0][0] for key, value in keywords.items() if (found := list(_tensors(value)))},
                [value for value in node.get("args", []) if not list(_tensors(value))],
                keywords,
            )
        else:  # Keras 2: lists of layer, node, place, keywords
            entries = [node] if node and isinstance(node[0], str) else node
            extra = {
                key: (value[0], value[1], value[2])
                for entry in entries
                if len(entry) > 3 and isinstance(entry[3], Mapping)
                for key, value in entry[3].items()
                if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)
            }
            yield _Call([(entry[0], entry[1], entry[2]) for entry in entries], extra)


def _tensors(value: Any) -> Iterator[tuple[tuple[str, int, int], tuple[int, ...]]]:
    """The references in the arguments of a call, with their shapes."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, node, place = value["config"]["keras_history"]
            yield (name, node, place), _sizes(value["config"]["shape"])
        else:
            yield from (found for item in value.values() for found in _tensors(item))
    elif isinstance(value, list):
        yield from (found for item in value for found in _tensors(item))


def _shapes(layers: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], tuple[int, ...]]:
    """The shapes of the results that layers use as their inputs, where the file has them."""
    nodes = (node for layer in layers for node in layer.get("inbound_nodes", []) if isinstance(node, Mapping))
    found = (pair for node in nodes for pair in _tensors([node.get("args", []), node.get("kwargs", {})]))
    return {(name, node): shape for (name, node, place), shape in found if place == 0}


def _references(value: Any) -> list[tuple[str, int, int]]:
    if isinstance(value, Mapping):
        return [reference for item in value.values() for reference in _references(item)]
    if value and isinstance(value[0], str):
        return [(value[0], value[1], value[2])]
    return [reference for item in value for reference in _references(item)]


def _sizes(shape: Sequence[int | None]) -> tuple[int, ...]:
    other = _LONG if len(shape) > 3 else _SHORT
    return tuple((1 if place == 0 else other) if size is None else int(size) for place, size in enumerate(shape))
