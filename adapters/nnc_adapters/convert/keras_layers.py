"""The layers of Keras, each by what its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from nnc_adapters.convert.axes import Axis, merged
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Direction, Trace, Traced
from nnc_adapters.tensorflow.keras_files import Path, Variables

__all__ = ["LAYERS", "Layer"]

_CELLS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn", "CuDNNLSTM": "lstm"}


@dataclass(frozen=True)
class Layer:
    """A layer as it is called: ``shape`` is that of its result, where the file has it."""

    run: Any
    result: Described
    variables: Variables
    config: Mapping[str, Any]
    path: Path
    values: Sequence[Traced]
    keywords: Mapping[str, Traced]
    shape: tuple[int, ...] | None
    call: Any = None

    @property
    def trace(self) -> Trace:
        """The trace of the model."""
        return self.result.trace

    @property
    def value(self) -> Traced:
        """The first input."""
        return self.values[0]

    @property
    def channel(self) -> int:
        """The axis of the channels."""
        return 1 if self.config.get("data_format") == "channels_first" else len(self.value.axes) - 1

    def tensors(self, *names: str, below: Path = (), others: Mapping[str, str] | None = None) -> dict[str, str]:
        """The tensors of the layer, or of one inside it."""
        return self.variables.get((*self.path, *below), names, others=others)

    def biased(self, value: Traced, tensors: Mapping[str, str], place: int) -> Traced:
        """Add the bias, if there is one, and apply the activation."""
        if "bias" in tensors:
            value = self.trace.vector(value, self.result.part(tensors["bias"], "bias"), [place])
        return self.activated(value)

    def activated(self, value: Traced) -> Traced:
        """Apply the activation of the layer."""
        name = self.config.get("activation")
        if isinstance(name, Mapping):
            name = name.get("config") if isinstance(name.get("config"), str) else name.get("class_name")
        if name in (None, "linear"):
            return value
        return self.trace.elementwise([value], str(name).lower())


Handler = Callable[[Layer], list[Traced]]
LAYERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Callable[[Layer], Traced]], Callable[[Layer], Traced]]:
    """Register a handler for layers of these classes that have one result."""

    def register(handler: Callable[[Layer], Traced]) -> Callable[[Layer], Traced]:
        LAYERS.update(dict.fromkeys(names, lambda layer: [handler(layer)]))
        return handler

    return register


def _wide(layer: Layer, sizes: Any, filters: int, *, transposed: bool = False) -> tuple[int, ...]:
    """The shape of the result of a convolution or pooling."""
    if layer.shape is not None:
        return layer.shape
    config, channel = layer.config, layer.channel
    places = [k for k in range(1, len(layer.value.axes)) if k != channel]
    shape = list(layer.value.shape)
    shape[channel] = filters
    kernel = _all(sizes, len(places))
    strides = _all(config.get("strides") or sizes, len(places))
    dilation = _all(config.get("dilation_rate", 1), len(places))
    for place, k, stride, rate in zip(places, kernel, strides, dilation, strict=True):
        reach, same = (k - 1) * rate + 1, config.get("padding", "valid") != "valid"
        if transposed:
            shape[place] = shape[place] * stride + (0 if same else max(reach - stride, 0))
        else:
            shape[place] = -(-(shape[place] if same else shape[place] - reach + 1) // stride)
    return tuple(shape)


def _all(value: Any, count: int) -> list[int]:
    return [int(value)] * count if isinstance(value, int) else [int(item) for item in value]


@handles("Conv1D", "Conv2D", "Conv3D", "Convolution2D")
def _conv(layer: Layer) -> Traced:
    tensors, config = layer.tensors("kernel", "bias"), layer.config
    shape, groups = _wide(layer, config["kernel_size"], config["filters"]), config.get("groups", 1)
    part = layer.result.part(tensors["kernel"], "conv")
    if groups == layer.value.axes[layer.channel].size > 1:
        value = layer.trace.depthwise(layer.value, shape, layer.channel, part)
    else:
        value = layer.trace.convolution(layer.value, shape, layer.channel, part, grouped=groups > 1)
    return layer.biased(value, tensors, layer.channel)


@handles("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed(layer: Layer) -> Traced:
    tensors, config = layer.tensors("kernel", "bias"), layer.config
    shape = _wide(layer, config["kernel_size"], config["filters"], transposed=True)
    part = layer.result.part(tensors["kernel"], "deconv")
    value = layer.trace.convolution(layer.value, shape, layer.channel, part, grouped=False, first=0)
    return layer.biased(value, tensors, layer.channel)


@handles("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise(layer: Layer) -> Traced:
    tensors, config = layer.tensors("kernel", "bias", others={"depthwise_kernel": "kernel"}), layer.config
    channels = layer.value.axes[layer.channel].size * config.get("depth_multiplier", 1)
    shape = _wide(layer, config["kernel_size"], channels)
    part = layer.result.part(tensors["kernel"], "depthwise")
    return layer.biased(layer.trace.depthwise(layer.value, shape, layer.channel, part), tensors, layer.channel)


@handles("SeparableConv1D", "SeparableConv2D")
def _separable(layer: Layer) -> Traced:
    tensors, config = layer.tensors("depthwise_kernel", "pointwise_kernel", "bias"), layer.config
    channels = layer.value.axes[layer.channel].size * config.get("depth_multiplier", 1)
    middle = list(_wide(layer, config["kernel_size"], channels))
    middle[layer.channel] = channels
    first = layer.result.part(tensors["depthwise_kernel"], "depthwise")
    value = layer.trace.depthwise(layer.value, middle, layer.channel, first)
    middle[layer.channel] = config["filters"]
    part = layer.result.part(tensors["pointwise_kernel"], "conv")
    value = layer.trace.convolution(value, middle, layer.channel, part, grouped=False)
    return layer.biased(value, tensors, layer.channel)


@handles("Dense")
def _dense(layer: Layer) -> Traced:
    tensors = layer.tensors("kernel", "bias")
    value = layer.trace.dense(layer.value, layer.result.part(tensors["kernel"], "dense"), layer.config["units"])
    return layer.biased(value, tensors, -1)


@handles("BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization")
def _batch_norm(layer: Layer) -> Traced:
    config = layer.config
    kept = [n for n, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)]
    tensors = layer.tensors(*kept, "moving_mean", "moving_variance")
    roles = {"mean": "moving_mean", "variance": "moving_variance", "scale": "gamma", "shift": "beta"}
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    found = {role: tensors.get(name) for role, name in roles.items()}
    return layer.result.normalized(layer.value, axis, found, "/".join(layer.path), config.get("epsilon", 1e-3))


@handles("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")
def _norm(layer: Layer) -> Traced:
    config, value = layer.config, layer.value
    kept = [n for n, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)]
    tensors = layer.tensors(*kept, others={"scale": "gamma"})
    axis = config.get("axis", -1)
    for name, kind in (("gamma", "scale"), ("beta", "shift")):
        if name in tensors:
            part = layer.result.part(tensors[name], kind)
            layer.trace.settings[part]["epsilon"] = config.get("epsilon", 1e-3)
            value = layer.trace.vector(value, part, axis if isinstance(axis, list) else [axis])
    return value


@handles("PReLU")
def _prelu(layer: Layer) -> Traced:
    tensors, shared = layer.tensors("alpha"), layer.config.get("shared_axes") or []
    places = [k for k in range(1, len(layer.value.axes)) if k not in shared]
    return layer.trace.vector(layer.value, layer.result.part(tensors["alpha"], "scale"), places)


@handles("Embedding")
def _embedding(layer: Layer) -> Traced:
    tensors = layer.tensors("embeddings")
    shape = (*layer.value.shape, layer.config["output_dim"])
    return layer.trace.embedding(layer.value, layer.result.part(tensors["embeddings"], "embedding"), shape)


def _direction(layer: Layer, name: str, config: Mapping[str, Any], path: Path, end: str) -> Direction:
    tensors = layer.variables.get(path, ("kernel", "recurrent_kernel", "bias"))
    cell = _CELLS[name]
    if cell == "gru" and not config.get("reset_after", "reset_after" in config or "bias" not in tensors):
        cell = "gru_reset_before"
    biases: tuple[PartOf, ...] = ()
    if "bias" in tensors:
        biases = tuple(layer.result.part(tensors["bias"], f"{cell}.bias{end}", k) for k in range(2))
    kernel = layer.result.part(tensors["kernel"], f"{cell}.input{end}")
    return Direction(kernel, layer.result.part(tensors["recurrent_kernel"], f"{cell}.state{end}"), biases)


def _states(layer: Layer, found: list[Direction], config: Mapping[str, Any]) -> list[Traced]:
    units, steps = config["units"], layer.value.shape[:-1]
    value = layer.trace.recurrent(layer.value, found, units, (*steps, units * len(found)))
    last = Traced((value.axes[0], value.axes[2]), value.reach)
    ends = [last, last] if config.get("return_state") else []
    return [value if config.get("return_sequences") else last, *ends]


def _recurrent(name: str) -> Handler:
    def run(layer: Layer) -> list[Traced]:
        end = ".backward" if layer.config.get("go_backwards") else ""
        path = layer.variables.only(layer.path)
        return _states(layer, [_direction(layer, name, layer.config, path, end)], layer.config)

    return run


LAYERS.update({name: _recurrent(name) for name in _CELLS})


def _bidirectional(layer: Layer) -> list[Traced]:
    inner, merge = layer.config["layer"], layer.config.get("merge_mode", "concat")
    name, config, groups = inner["class_name"], inner["config"], layer.variables.below(layer.path)
    backward = layer.config.get("backward_layer") or {}
    other = (backward.get("config") or {}).get("name") or f"backward_{config['name']}"
    depth = len(layer.path)
    second = [g for g in groups if g[depth] == other or g[depth].startswith("backward_")]
    first = [g for g in groups if g not in second]
    (one,), (two,) = first, second
    found = [_direction(layer, name, config, one, ""), _direction(layer, name, config, two, ".backward")]
    results = _states(layer, found, config)
    if merge != "concat":
        axes = (*results[0].axes[:-1], Axis(config["units"]))
        results[0] = replace(results[0], axes=axes)
    return results


LAYERS["Bidirectional"] = _bidirectional


def _distributed(layer: Layer) -> list[Traced]:
    inner, x = layer.config["layer"], layer.value
    named = (*layer.path, inner["config"]["name"])
    path = layer.path if layer.variables.below(named) else layer.path[:-1]
    if path != layer.path:  # older files do not name the layer inside
        inner = {**inner, "config": {**inner["config"], "name": layer.path[-1]}}
    whole = Traced((merged(x.axes[:2]), *x.axes[2:]), x.reach)
    results = layer.run.layer(inner, path, [whole], {}, None)
    return [Traced((*x.axes[:2], *found.axes[1:]), found.reach) for found in results]


LAYERS["TimeDistributed"] = _distributed


def _attention(layer: Layer) -> list[Traced]:
    given = [*layer.values, *(layer.keywords[k] for k in ("query", "value", "key") if k in layer.keywords)]
    query, value = given[0], given[1] if len(given) > 1 else given[0]
    key, config = given[2] if len(given) > 2 else value, layer.config
    heads, trace, found = config["num_heads"], layer.trace, {}
    sizes = {
        "query": config["key_dim"],
        "key": config["key_dim"],
        "value": config.get("value_dim") or config["key_dim"],
    }
    for name, x in (("query", query), ("key", key), ("value", value)):
        tensors = layer.tensors("kernel", "bias", below=(name,))
        result = trace.dense(x, layer.result.part(tensors["kernel"], "heads"), heads * sizes[name])
        if "bias" in tensors:
            result = trace.vector(result, layer.result.part(tensors["bias"], "bias"), [-1])
        found[name] = result
    tensors = layer.tensors("kernel", "bias", below=("attention_output",))
    size = layer.variables.shapes[tensors["kernel"]][-1]
    result = trace.attend(found["query"], found["key"], found["value"])
    result = trace.dense(result, layer.result.part(tensors["kernel"], "heads_first"), size)
    if "bias" in tensors:
        result = trace.vector(result, layer.result.part(tensors["bias"], "bias"), [-1])
    return [result, trace.opaque([result], (1, heads, query.shape[1], key.shape[1]))]


LAYERS["MultiHeadAttention"] = _attention


@handles("Attention")
def _dot_product(layer: Layer) -> Traced:
    query, value = layer.values[:2]
    return layer.trace.attend(query, layer.values[2] if len(layer.values) > 2 else value, value)


@handles("Flatten")
def _flatten(layer: Layer) -> Traced:
    value = layer.value
    if layer.config.get("data_format") == "channels_first" and len(value.axes) > 2:
        value = layer.trace.permute(value, [0, *range(2, len(value.axes)), 1])
    return layer.trace.reshape(value, (value.shape[0], prod(value.shape[1:])), layer.path[-1])


@handles("Reshape")
def _reshape(layer: Layer) -> Traced:
    shape = [int(size) for size in layer.config["target_shape"]]
    if -1 in shape:
        shape[shape.index(-1)] = prod(layer.value.shape[1:]) // -prod(shape)
    return layer.trace.reshape(layer.value, (layer.value.shape[0], *shape), layer.path[-1])


@handles("Permute")
def _permute(layer: Layer) -> Traced:
    return layer.trace.permute(layer.value, [0, *layer.config["dims"]])


@handles("RepeatVector")
def _repeat(layer: Layer) -> Traced:
    value = layer.value
    return Traced((value.axes[0], Axis(layer.config["n"]), *value.axes[1:]), value.reach)


@handles("Concatenate", "Merge")
def _concatenate(layer: Layer) -> Traced:
    return layer.trace.concatenate(list(layer.values), layer.config.get("axis", -1))


@handles("Add", "Multiply", "Average", "Maximum", "Minimum")
def _together(layer: Layer) -> Traced:
    return layer.trace.elementwise(list(layer.values))


@handles("Subtract", "Divide")
def _ordered(layer: Layer) -> Traced:
    return layer.trace.elementwise(list(layer.values), "ordered", ordered=True)


@handles("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout",
         "AlphaDropout", "Identity", "ActivityRegularization", "Rescaling", "Masking")  # fmt: skip
def _same(layer: Layer) -> Traced:
    return layer.value


@handles("Activation")
def _activation(layer: Layer) -> Traced:
    return layer.activated(layer.value)


for _class, _step in {"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "Softmax": "softmax", "Relu": "relu",
                      "ThresholdedReLU": "thresholded", "Sigmoid": "sigmoid", "Tanh": "tanh", "Gelu": "gelu",
                      "Silu": "silu", "Relu6": "relu6"}.items():  # fmt: skip
    LAYERS[_class] = lambda layer, step=_step: [layer.trace.elementwise([layer.value], step)]  # type: ignore[misc]


@handles(*(f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)))
def _pool(layer: Layer) -> Traced:
    shape = _wide(layer, layer.config["pool_size"], layer.value.shape[layer.channel])
    return layer.trace.pool(layer.value, shape, layer.channel)


@handles(*(f"Global{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)))
def _global_pool(layer: Layer) -> Traced:
    layer.trace.pool(layer.value, layer.value.shape, layer.channel)
    places = [k for k in range(1, len(layer.value.axes)) if k != layer.channel]
    return layer.trace.reduce(layer.value, places, keep=bool(layer.config.get("keepdims")))


def _resized(layer: Layer, size: Callable[[int, Any], int], option: Any) -> Traced:
    places = [k for k in range(1, len(layer.value.axes)) if k != layer.channel]
    options = option if isinstance(option, list) else [option] * len(places)
    shape = list(layer.value.shape)
    for place, each in zip(places, options, strict=True):
        shape[place] = size(shape[place], each)
    return layer.trace.pool(layer.value, layer.shape or shape, layer.channel)


def _margins(each: Any) -> int:
    return sum(each) if isinstance(each, list) else 2 * int(each)


@handles("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def _padded(layer: Layer) -> Traced:
    option = layer.config["padding"]
    if len(layer.value.axes) == 3:
        option = [option]
    return _resized(layer, lambda size, each: size + _margins(each), option)


@handles("Cropping1D", "Cropping2D", "Cropping3D")
def _cropped(layer: Layer) -> Traced:
    option = layer.config["cropping"]
    if len(layer.value.axes) == 3:
        option = [option]
    return _resized(layer, lambda size, each: size - _margins(each), option)


@handles("UpSampling1D", "UpSampling2D", "UpSampling3D")
def _upsampled(layer: Layer) -> Traced:
    return _resized(layer, lambda size, each: size * int(each), layer.config["size"])
