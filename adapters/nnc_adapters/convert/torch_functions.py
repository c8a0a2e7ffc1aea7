"""The functions of PyTorch, each by what it does to axes and with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.torch_recorder import Args, Handler, Kwargs, Recorder, Weight
from nnc_adapters.convert.trace import Direction, Traced

__all__ = ["HANDLERS"]

HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for functions of these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


@dataclass
class _Call:
    """The arguments of a function by name."""

    names: tuple[str, ...]
    args: Args
    kwargs: Kwargs
    found: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.found = {**dict(zip(self.names, self.args, strict=False)), **self.kwargs}

    def __getattr__(self, name: str) -> Any:
        return self.found.get(name)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _biased(r: Recorder, value: Traced, bias: Any, place: int) -> Traced:
    return value if bias is None else r.result.trace.vector(value, r.part(bias, "bias"), [place])


@handles("linear")
def _linear(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    call = _Call(("input", "weight", "bias"), args, kwargs)
    weight = r.weight(call.weight)
    part = r.result.part(weight.name, "dense_input_first" if weight.transposed else "dense")
    return _biased(r, r.result.trace.dense(r.value(call.input), part, out.shape[-1]), call.bias, -1)


@handles("addmm")
def _addmm(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    bias, x, weight = args[:3]
    found = r.weight(weight)
    part = r.result.part(found.name, "dense" if found.transposed else "dense_input_first")
    return _biased(r, r.result.trace.dense(r.value(x), part, out.shape[-1]), bias, -1)


@handles("matmul", "mm", "bmm", "rmatmul")
def _matmul(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    one, other = args[:2]
    if r.is_weight(other) and other.dim() == 2:
        found = r.weight(other)
        part = r.result.part(found.name, "dense" if found.transposed else "dense_input_first")
        return r.result.trace.dense(r.value(one), part, out.shape[-1])
    return r.result.trace.product(r.value(one), r.value(other), _shape(out))


@handles("conv1d", "conv2d", "conv3d")
def _convolution(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    call = _Call(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, kwargs)
    x, part = r.value(call.input), r.part(call.weight, "conv")
    if len(x.axes) != call.weight.dim():
        raise ValueError
    groups = call.groups or 1
    if groups == call.input.shape[1]:
        value = r.result.trace.depthwise(x, _shape(out), 1, part)
    else:
        value = r.result.trace.convolution(x, _shape(out), 1, part, grouped=groups > 1)
    _set(r, part, call)
    return _biased(r, value, call.bias, 1)


def _set(r: Recorder, part: PartOf, call: _Call) -> None:
    stride = call.stride if isinstance(call.stride, list | tuple) else (call.stride or 1,)
    r.result.trace.settings[part].update(strides=max(stride))


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    call = _Call(names, args, kwargs)
    x, part = r.value(call.input), r.part(call.weight, "deconv")
    value = r.result.trace.convolution(x, _shape(out), 1, part, grouped=(call.groups or 1) > 1, first=0)
    return _biased(r, value, call.bias, 1)


@handles("batch_norm")
def _batch_norm(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    call = _Call(names, args, kwargs)
    if call.running_mean is None:
        raise ValueError
    given = {"mean": call.running_mean, "variance": call.running_var, "scale": call.weight, "shift": call.bias}
    found = {role: None if tensor is None else r.weight(tensor).name for role, tensor in given.items()}
    beside = f"beside {found['mean']}"
    return r.result.normalized(r.value(call.input), 1, found, beside, call.eps if call.eps is not None else 1e-5)


@handles("layer_norm", "rms_norm")
def _layer_norm(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    call = _Call(("input", "normalized_shape", "weight", "bias", "eps"), args, kwargs)
    return _affine(r, r.value(call.input), call, range(-len(call.normalized_shape), 0))


@handles("group_norm")
def _group_norm(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    return _affine(r, r.value(args[0]), _Call(("input", "num_groups", "weight", "bias", "eps"), args, kwargs), [1])


@handles("instance_norm")
def _instance_norm(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    call = _Call(("input", "running_mean", "running_var", "weight", "bias"), args, kwargs)
    return _affine(r, r.value(call.input), call, [1])


def _affine(r: Recorder, value: Traced, call: _Call, places: Sequence[int]) -> Traced:
    for kind, tensor in (("scale", call.weight), ("shift", call.bias)):
        if tensor is not None:
            part = r.part(tensor, kind)
            if call.eps is not None:
                r.result.trace.settings[part]["epsilon"] = call.eps
            value = r.result.trace.vector(value, part, list(places))
    return value


@handles("prelu")
def _prelu(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    x, slope = r.value(args[0]), args[1]
    places = [1] if slope.numel() > 1 else []
    return r.result.trace.vector(x, r.part(slope, "scale"), places)


@handles("embedding")
def _embedding(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    return r.result.trace.embedding(r.value(args[0]), r.part(args[1], "embedding"), _shape(out))


@handles("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> list[Traced]:
    x, weights, biased, layers, both = args[0], args[2], args[3], args[4], args[7]
    states = out[1] if isinstance(out[1], tuple) else (out[1],)
    directions, each = 2 if both else 1, 4 if biased else 2
    if len(weights) != layers * directions * each:
        raise ValueError
    value, hidden = r.value(x), states[0].shape[-1]
    cell = {4: "lstm", 3: "gru", 1: "rnn"}[weights[1].shape[0] // hidden]
    for layer in range(layers):
        found = []
        for k in range(directions):
            start = (layer * directions + k) * each
            end = ".backward" if k else ""
            places = ("input", "state", "input_bias", "state_bias")[:each]
            parts = [r.part(weights[start + p], f"{cell}.{place}{end}") for p, place in enumerate(places)]
            found.append(Direction(parts[0], parts[1], tuple(parts[2:])))
        value = r.result.trace.recurrent(value, found, hidden, _shape(out[0]))
    ends = (Traced((*map(Axis, state.shape[:-1]), Axis(hidden)), value.reach) for state in states)
    return [value, *ends]


@handles("multi_head_attention_forward")
def _attention(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> list[Traced]:
    names = [
        "query",
        "key",
        "value",
        "embed_dim",
        "heads",
        "weight",
        "bias",
        "bias_k",
        "bias_v",
        "zeros",
        "dropout",
        "out_weight",
        "out_bias",
    ]
    call = _Call(tuple(names), args, kwargs)
    trace, given = r.result.trace, [call.query, call.key, call.value]
    values, size = [r.value(tensor) for tensor in given], call.embed_dim
    if call.bias_k is not None:
        raise ValueError
    if call.use_separate_proj_weight:
        separate = (call.q_proj_weight, call.k_proj_weight, call.v_proj_weight)
        parts = [r.part(weight, "dense") for weight in separate]
        found = [trace.dense(v, part, size) for v, part in zip(values, parts, strict=True)]
    elif r.result.joint and len({id(tensor) for tensor in given}) == 1:
        whole = _biased(r, trace.dense(values[0], r.part(call.weight, "dense"), 3 * size), call.bias, -1)
        found = [trace.piece(whole, -1, k * size, size) for k in range(3)]
    else:
        found = [trace.dense(v, r.part(call.weight, "projections", k), size) for k, v in enumerate(values)]
    if call.bias is not None and r.result.kinds.get(r.weight(call.bias).name) != "bias":
        biases = [r.part(call.bias, "projection_biases", k) for k in range(3)]
        found = [trace.vector(v, bias, [-1]) for v, bias in zip(found, biases, strict=True)]
    result = trace.dense(trace.attend(*found), r.part(call.out_weight, "dense"), size)
    result = _biased(r, result, call.out_bias, -1)
    return [result, trace.opaque([result], _shape(out[1]))] if out[1] is not None else [result]


@handles("scaled_dot_product_attention")
def _dot_product(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    call = _Call(("query", "key", "value"), args, kwargs)
    return r.result.trace.attend(r.value(call.query), r.value(call.key), r.value(call.value))


def _operands(r: Recorder, args: Args, step: str, kind: str | None, ordered: bool = False) -> Traced | None:
    tensors = [a for a in args[:2] if isinstance(a, torch.Tensor) and not (r.is_weight(a) and a.numel() == 1)]
    if kind and len(tensors) == 2 and r.is_weight(tensors[0]) != r.is_weight(tensors[1]):
        x, weight = tensors[::-1] if r.is_weight(tensors[0]) else tensors
        value, rank = r.value(x), weight.dim()
        if rank <= len(value.axes):
            places = [k - rank for k in range(rank) if weight.shape[k] != 1]
            if all(value.axes[place].size == weight.shape[place] for place in places):
                return r.result.trace.vector(value, r.part(weight, kind), places)
    return r.result.trace.elementwise([r.value(t) for t in tensors], step if ordered else "", ordered=ordered)


@handles("add", "radd")
def _add(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    return _operands(r, args, "add", "bias")


@handles("mul", "rmul")
def _mul(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    return _operands(r, args, "mul", "scale")


@handles("sub", "rsub", "div", "truediv", "rtruediv", "pow")
def _ordered(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    return _operands(r, args, "ordered", None, ordered=True)


@handles(
    "dropout", "dropout1d", "dropout2d", "contiguous", "clone", "to", "float", "detach", "alpha_dropout", "identity"
)
def _same(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | Weight:
    found = r.known.get(id(args[0]))
    return found if found is not None else r.value(args[0])


_ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "gelu", "silu", "elu", "selu", "leaky_relu", "softplus", "hardtanh", "hardsigmoid"),
    *("hardswish", "relu6", "mish", "exp", "sqrt", "neg", "abs", "clamp", "log", "softsign", "rsqrt", "masked_fill"),
)


def _activation(name: str) -> Handler:
    return lambda r, args, kwargs, out: r.result.trace.elementwise([r.value(args[0])], name)


HANDLERS.update({name: _activation(name) for name in (*_ACTIVATIONS, "softmax", "log_softmax")})


@handles("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | Weight:
    if r.is_weight(args[0]) and _shape(args[0]) == _shape(out):
        return r.weight(args[0])
    return r.result.trace.reshape(r.value(args[0]), _shape(out), "flatten")


def _permuted(r: Recorder, x: Any, order: Sequence[int]) -> Traced | Weight:
    if r.is_weight(x) and len(order) == 2:
        weight = r.weight(x)
        return Weight(weight.name, weight.transposed ^ (list(order) == [1, 0]))
    return r.result.trace.permute(r.value(x), order)


@handles("permute")
def _by_order(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | Weight:
    dims = args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:]
    return _permuted(r, args[0], [d % args[0].dim() for d in (dims or kwargs["dims"])])


@handles("transpose", "swapaxes", "swapdims")
def _by_swap(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | Weight:
    one, other = [*args[1:], *kwargs.values()][:2]
    order = list(range(args[0].dim()))
    order[one], order[other] = order[other], order[one]
    return _permuted(r, args[0], order)


@handles("t", "T", "mT")
def _turned(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | Weight:
    order = list(range(args[0].dim()))
    return _permuted(r, args[0], order[:-2] + order[-2:][::-1])


@handles("cat", "concat", "concatenate")
def _concatenate(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    place = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return r.result.trace.concatenate([r.value(tensor) for tensor in args[0]], place)


@handles("chunk", "split", "tensor_split", "split_with_sizes")
def _split(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> list[Traced]:
    place = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    value, start, found = r.value(args[0]), 0, []
    for tensor in out:
        found.append(r.result.trace.piece(value, place, start, tensor.shape[place]))
        start += tensor.shape[place]
    return found


@handles("getitem")
def _item(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    x, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    if Ellipsis in [i for i in index if not isinstance(i, torch.Tensor)]:
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (x.dim() - len(index) + 1), *index[at + 1 :])
    value = r.value(x)
    for place, item in enumerate(index):
        if isinstance(item, slice):
            start, stop, step = item.indices(x.shape[place])
            if step != 1:
                return None
            value = r.result.trace.piece(value, place, start, max(stop - start, 0))
        elif isinstance(item, int):
            value = r.result.trace.piece(value, place, item % x.shape[place], 1)
        else:
            return None
    return r.result.trace.reshape(value, _shape(out))


@handles(
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate", "pad"),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
)
def _pool(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    value = r.value(args[0])
    if not isinstance(out, torch.Tensor) or len(value.axes) < 3 or value.axes[1].size != out.shape[1]:
        return None
    return r.result.trace.pool(value, _shape(out), 1)


@handles("mean", "sum", "amax", "amin", "max", "min", "logsumexp")
def _reduce(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced | None:
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dims is None or isinstance(dims, torch.Tensor) or not isinstance(out, torch.Tensor):
        return None
    keep = out.dim() == args[0].dim()
    places = [dims] if isinstance(dims, int) else list(dims)
    return r.result.trace.reduce(r.value(args[0]), places, keep=keep)


@handles("expand", "expand_as", "repeat")
def _expand(r: Recorder, args: Args, kwargs: Kwargs, out: Any) -> Traced:
    return r.result.trace.expand(r.value(args[0]), _shape(out))
