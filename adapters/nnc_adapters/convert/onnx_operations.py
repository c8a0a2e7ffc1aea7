"""The operations of ONNX, each by what it does to axes and with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.onnx_values import Call, Handler, Weight
from nnc_adapters.convert.trace import Direction, Traced

__all__ = ["HANDLERS"]

HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for operations of these types."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _biased(call: Call, value: Traced, slot: int, place: int) -> Traced:
    part = call.part(slot, "bias")
    return value if part is None else call.trace.vector(value, part, [place])


@handles("Conv")
def _conv(call: Call) -> Traced:
    x, groups = call.value(0), call.attribute("group", 1)
    part = call.needed(1, "conv")
    if groups > 1 and groups == x.axes[1].size:
        value = call.trace.depthwise(x, call.shape, 1, part)
    else:
        value = call.trace.convolution(x, call.shape, 1, part, grouped=groups > 1)
    call.trace.settings[part]["strides"] = max(call.attribute("strides", [1]))
    return _biased(call, value, 2, 1)


@handles("ConvTranspose")
def _conv_transpose(call: Call) -> Traced:
    grouped = call.attribute("group", 1) > 1
    part = call.needed(1, "deconv")
    return _biased(call, call.trace.convolution(call.value(0), call.shape, 1, part, grouped=grouped, first=0), 2, 1)


@handles("Gemm")
def _gemm(call: Call) -> Traced | None:
    if isinstance(call.get(0), Weight) or call.attribute("transA", 0):
        return None
    weight = call.weight(1)
    if weight is None:
        return None
    output_first = bool(call.attribute("transB", 0)) != weight.transposed
    part = call.needed(1, "dense" if output_first else "dense_input_first")
    return _biased(call, call.trace.dense(call.value(0), part, call.shape[-1]), 2, -1)


@handles("MatMul")
def _matmul(call: Call) -> Traced | None:
    left, right = call.weight(0), call.weight(1)
    if right is not None and left is None and len(right.shape) == 2:
        part = call.needed(1, "dense" if right.transposed else "dense_input_first")
        return call.trace.dense(call.value(0), part, right.shape[-1])
    if left is not None and right is None and len(left.shape) == 2:
        part = call.needed(0, "dense_input_first" if left.transposed else "dense")
        x = call.value(1)
        order = [*range(len(x.axes) - 2), len(x.axes) - 1, len(x.axes) - 2]
        return call.trace.permute(call.trace.dense(call.trace.permute(x, order), part, left.shape[0]), order)
    return call.trace.product(call.value(0), call.value(1), call.shape)


@handles("BatchNormalization")
def _batch_norm(call: Call) -> Traced | None:
    weights = {role: call.weight(slot) for slot, role in enumerate(("scale", "shift", "mean", "variance"), 1)}
    names = {role: None if weight is None else weight.name for role, weight in weights.items()}
    if None in names.values():
        return None
    return call.graph.result.normalized(call.value(0), 1, names, "", call.attribute("epsilon", 1e-5))


@handles("LayerNormalization", "RMSNormalization")
def _layer_norm(call: Call) -> Traced:
    x = call.value(0)
    return _affine(call, x, list(range(call.attribute("axis", -1) % len(x.axes), len(x.axes))))


@handles("InstanceNormalization", "GroupNormalization")
def _instance_norm(call: Call) -> Traced:
    weight = call.weight(1)
    x = call.value(0)
    if weight is None or weight.shape != (x.axes[1].size,) or _is_group(call):
        return call.trace.elementwise([x])  # groups: what scales the channels comes later
    return _affine(call, x, [1])


def _is_group(call: Call) -> bool:
    """Whether it normalizes groups: its input was reshaped to have these in place of channels."""
    x = call.value(0)
    return call.node.op_type == "InstanceNormalization" and len(x.axes) == 3 and bool(x.axes[2].parts)


def _affine(call: Call, value: Traced, places: Sequence[int]) -> Traced:
    for slot, kind in ((1, "scale"), (2, "shift")):
        part = call.part(slot, kind)
        if part is not None:
            call.trace.settings[part]["epsilon"] = call.attribute("epsilon", 1e-5)
            value = call.trace.vector(value, part, places)
    return value


@handles("PRelu")
def _prelu(call: Call) -> Traced | None:
    return _by_weight(call, 0, 1, "scale")


def _by_weight(call: Call, data: int, slot: int, kind: str) -> Traced | None:
    """A weight that is added or multiplied, position by position along its axes."""
    weight, x = call.weight(slot), call.value(data)
    if weight is None or weight.transposed or len(weight.shape) > len(x.axes):
        return None
    places = [k - len(weight.shape) for k, size in enumerate(weight.shape) if size != 1]
    if any(x.axes[place].size != weight.shape[place] for place in places):
        return None
    return call.trace.vector(x, call.needed(slot, kind), places)


def _operands(call: Call, kind: str | None, step: str = "", ordered: bool = False) -> Traced | None:
    values = [slot for slot in range(len(call.node.input)) if isinstance(call.get(slot), Traced)]
    weights = [slot for slot in range(len(call.node.input)) if (w := call.weight(slot)) and prod(w.shape) != 1]
    if kind and len(values) == len(weights) == 1:
        found = _by_weight(call, values[0], weights[0], kind)
        if found is not None:
            return found
    traced = [call.value(slot) for slot in sorted((*values, *weights))]
    if not traced:
        return None
    result = call.trace.elementwise(traced, step, ordered=ordered)
    shape = call.graph.shapes.get(call.node.output[0], result.shape)
    return result if shape == result.shape else None


@handles("Add", "Sum")
def _add(call: Call) -> Traced | None:
    return _operands(call, "bias")


@handles("Mul")
def _mul(call: Call) -> Traced | None:
    return _operands(call, "scale")


@handles("Sub", "Div", "Pow", "Where", "Max", "Min")
def _ordered(call: Call) -> Traced | None:
    return _operands(call, None, "ordered", ordered=True)


def _activation(name: str) -> Handler:
    return lambda call: call.trace.elementwise([call.value(0)], name)


_STEPS = {"LeakyRelu": "leaky_relu", "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish", "Clip": "clamp"}
for _name in ("Relu", "Sigmoid", "Tanh", "Gelu", "Elu", "Selu", "Softplus", "Mish", "Softmax", "Exp", "Sqrt", "Erf",
              "Neg", "Abs", "Log", "LogSoftmax", "Reciprocal", *_STEPS):  # fmt: skip
    HANDLERS[_name] = _activation(_STEPS.get(_name, _name.lower()))


@handles("Identity", "Cast", "CastLike", "Dropout", "QuantizeLinear", "DequantizeLinear")
def _same(call: Call) -> Traced | Weight | None:
    return call.get(0)


@handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> Traced | Weight | None:
    weight = call.weight(0)
    if weight is None:
        return call.trace.reshape(call.value(0), call.shape, call.node.name or "flatten")
    shape = call.graph.shapes.get(call.node.output[0])
    if shape is None or [n for n in shape if n != 1] != [n for n in weight.shape if n != 1]:
        return None
    return Weight(weight.name, shape, weight.transposed)


@handles("Transpose")
def _transpose(call: Call) -> Traced | Weight | None:
    weight, order = call.weight(0), call.attribute("perm")
    if weight is not None:
        if len(weight.shape) != 2:
            return None
        return Weight(weight.name, weight.shape[::-1], not weight.transposed) if order != [0, 1] else weight
    value = call.value(0)
    return call.trace.permute(value, order or list(range(len(value.axes)))[::-1])


@handles("Concat")
def _concat(call: Call) -> Traced:
    return call.trace.concatenate([call.value(slot) for slot in range(len(call.node.input))], call.attribute("axis"))


@handles("Split")
def _split(call: Call) -> list[Traced]:
    axis, start, found = call.attribute("axis", 0), 0, []
    for name in call.node.output:
        size = call.graph.shapes[name][axis]
        found.append(call.trace.piece(call.value(0), axis, start, size))
        start += size
    return found


@handles("Slice")
def _slice(call: Call) -> Traced | None:
    value, shape = call.value(0), call.shape
    starts = call.attribute("starts", call.constant(1))
    axes = call.attribute("axes", call.constant(3))
    steps = call.constant(4)
    if starts is None or (steps is not None and np.any(np.ravel(steps) != 1)):
        return None
    places = range(len(np.ravel(starts))) if axes is None else [int(axis) for axis in np.ravel(axes)]
    for place, start in zip(places, np.ravel(starts), strict=True):
        size = value.axes[place].size
        value = call.trace.piece(value, place, int(start) % size if size else 0, shape[place])
    return value


@handles("Gather")
def _gather(call: Call) -> Traced | None:
    weight, axis = call.weight(0), call.attribute("axis", 0)
    if weight is not None and axis == 0 and len(weight.shape) == 2:
        part, indices = call.needed(0, "embedding"), call.get(1)
        ids = indices if isinstance(indices, Traced) else call.trace.opaque([], call.shape[:-1])
        return call.trace.embedding(ids, part, call.shape)
    index = call.constant(1)
    if weight is not None or index is None or np.size(index) != 1:
        return None
    value = call.value(0)
    found = call.trace.piece(value, axis, int(np.ravel(index)[0]) % value.axes[axis].size, 1)
    return call.trace.reshape(found, call.shape)


@handles("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize", "Upsample", "Pad")
def _pool(call: Call) -> Traced | None:
    value = call.value(0)
    same = value.axes[1].size == call.shape[1] and len(value.axes) >= 3
    return call.trace.pool(value, call.shape, 1) if same else None


@handles("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
def _reduce(call: Call) -> Traced:
    value, axes = call.value(0), call.axes(1)
    keep = bool(call.attribute("keepdims", 1))
    return call.trace.reduce(value, range(len(value.axes)) if axes is None else axes, keep=keep)


@handles("ArgMax", "ArgMin", "TopK", "OneHot")
def _chosen(call: Call) -> None:
    return None


@handles("Expand")
def _expand(call: Call) -> Traced:
    value, shape = call.value(0), call.shape
    return call.trace.expand(value, shape)


_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}


@handles("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> list[Traced] | None:
    x, weight = call.value(0), call.weight(1)
    if weight is None or call.attribute("layout", 0) or call.weight(2) is None:
        return None
    cell, hidden = _CELLS[call.node.op_type], call.attribute("hidden_size")
    if cell == "gru" and not call.attribute("linear_before_reset", 0):
        cell = "gru_reset_before"
    end = ".backward" if call.attribute("direction", b"forward") == b"reverse" else ""
    biased = call.weight(3) is not None
    found = [
        Direction(
            call.needed(1, f"{cell}.input{end}", k),
            call.needed(2, f"{cell}.state{end}", k),
            (call.needed(3, f"{cell}.bias{end}", 2 * k), call.needed(3, f"{cell}.bias{end}", 2 * k + 1))
            if biased
            else (),
        )
        for k in range(weight.shape[0])
    ]
    count = weight.shape[0]
    value = call.trace.recurrent(x, found, hidden, (*x.shape[:2], count * hidden))
    steps, batch, states = value.axes
    pair = list(states.parts) if states.parts else [Axis(1), states]
    y = Traced((steps, pair[0], batch, pair[1]), value.reach)
    end_state = Traced((pair[0], batch, pair[1]), value.reach)
    return [y, end_state, end_state]
