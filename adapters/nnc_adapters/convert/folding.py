"""Batch normalization that one model has and the other has folded into the layers before it.

A layer y = Wx + b that is normalized is the layer with W * scale / sqrt(variance + epsilon), and a bias to match. In
the other direction the normalization becomes one that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.layouts import Vector
from nnc_adapters.convert.network import Network, Parameter
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Reach, Trace
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core.errors import ModelError

__all__ = ["Fold", "View", "folded_tensors", "unfolded_tensors", "views"]

Array = NDArray[Any]
Tensors = Mapping[str, Array]

_WEIGHTS = ("conv", "deconv", "depthwise", "dense", "dense_input_first")
_STATISTICS = ("mean", "variance", "scale", "shift")


@dataclass(frozen=True)
class Fold:
    """A layer and the normalization behind it: names of tensors. ``bias`` is that of the layer with it folded in, which
    the layer itself has where ``biased``."""

    weight: str
    bias: str
    biased: bool
    mean: str
    variance: str
    scale: str
    shift: str
    epsilon: float


@dataclass(frozen=True)
class View:
    """A ``network``, and how it is seen with these ``folds``."""

    network: Network
    folds: tuple[Fold, ...] = ()

    @cached_property
    def seen(self) -> Network:
        """The network without what is folded."""
        trace = self.network.trace
        return _without(self.network, trace, self.folds) if self.folds and trace is not None else self.network


def views(network: Network, *, fold: bool) -> list[View]:
    """The network as it is and, if asked for and possible, with everything folded."""
    folds = foldable(network) if fold else ()
    return [View(network), *([View(network, folds)] if folds else [])]


def foldable(network: Network) -> tuple[Fold, ...]:
    """Every batch normalization that directly follows a layer."""
    trace = network.trace
    if trace is None:
        return ()
    behind = _behind(trace)
    return tuple(fold for part in trace.before if (fold := _fold(part, network, trace, behind)) is not None)


def _behind(trace: Trace) -> dict[PartOf, set[PartOf | None]]:
    """What follows each weight; None stands for an output."""
    found: dict[PartOf, set[PartOf | None]] = {part: set() for part in trace.before}
    edges = [(reach, part) for part, reaches in trace.before.items() for reach in reaches]
    ends = [(reach, None) for reaches in trace.results for reach in reaches]
    for reach, part in (*edges, *ends):
        if isinstance(reach.origin, PartOf):
            found[reach.origin].add(part if not reach.path else None)
    return found


def _fold(mean: PartOf, network: Network, trace: Trace, behind: Mapping[PartOf, set[PartOf | None]]) -> Fold | None:
    chain = [mean]
    while len(chain) < len(_STATISTICS):
        (following,) = behind[chain[-1]] if len(behind[chain[-1]]) == 1 else (None,)
        if following is None:
            return None
        chain.append(following)
    if tuple(network.parameters[part.name].kind for part in chain) != _STATISTICS:
        return None
    bias, weight = None, _before(mean, trace, behind)
    if weight is not None and network.parameters[weight.name].kind == "bias":
        bias, weight = weight, _before(weight, trace, behind)
    if weight is None or network.parameters[weight.name].kind not in _WEIGHTS:
        return None
    if not _fits(network, weight, mean):
        return None
    epsilon = float(str(trace.settings[mean].get("epsilon", 1e-5)))
    own = bias.name if bias is not None else f"{weight.name} (bias)"
    means, variance, scale, shift = (part.name for part in chain)
    return Fold(weight.name, own, bias is not None, means, variance, scale, shift, epsilon)


def _fits(network: Network, weight: PartOf, mean: PartOf) -> bool:
    """Whether what is normalized are the outputs of the layer, and not what they were reshaped to."""
    parameter = network.parameters[weight.name]
    size = network.parameters[mean.name].parts[0].shape[0]
    return len(parameter.parts) == 1 and parameter.parts[0].shape[parameter.kind == "deconv"] == size


def _before(part: PartOf, trace: Trace, behind: Mapping[PartOf, set[PartOf | None]]) -> PartOf | None:
    """The one weight directly before another, if nothing else comes behind it."""
    reaches = trace.before[part]
    if len(reaches) != 1:
        return None
    (reach,) = reaches
    if reach.path or not isinstance(reach.origin, PartOf) or behind[reach.origin] != {part}:
        return None
    return reach.origin


def _without(network: Network, trace: Trace, folds: tuple[Fold, ...]) -> Network:
    gone = {name for fold in folds for name in (fold.mean, fold.variance, fold.scale, fold.shift)}
    biases = {PartOf(fold.shift, 0): PartOf(fold.bias, 0) for fold in folds}

    def moved(reaches: set[Reach] | frozenset[Reach]) -> set[Reach]:
        return {
            replace(r, origin=biases.get(r.origin, r.origin)) if isinstance(r.origin, PartOf) else r for r in reaches
        }

    before: dict[PartOf, set[Reach]] = {}
    layers = {fold.weight: fold for fold in folds}
    for part, reaches in trace.before.items():
        if part.name not in gone:
            before[part] = moved(reaches)
        fold = layers.get(part.name)
        if fold is not None:
            before[PartOf(fold.bias, 0)] = {Reach(part)}
    axes = {key: axis for key, axis in trace.axes.items() if key[0].name not in gone}
    parameters = {name: p for name, p in network.parameters.items() if name not in gone}
    for fold in folds:
        axes[PartOf(fold.bias, 0), 0] = trace.axes[PartOf(fold.shift, 0), 0]
        shape = network.parameters[fold.shift].parts[0].shape
        vector = Vector("bias")
        parameters.setdefault(fold.bias, Parameter(fold.bias, shape, "bias", vector, tuple(vector.parts(shape))))
    results = [frozenset(moved(reached)) for reached in trace.results]
    return replace(network, parameters=parameters, trace=replace(trace, before=before, axes=axes, results=results))


def _moved(reach: Reach, biases: Mapping[PartOf, PartOf]) -> Reach:
    origin = reach.origin
    return replace(reach, origin=biases.get(origin, origin)) if isinstance(origin, PartOf) else reach


def folded_tensors(view: View, tensors: Tensors) -> Tensors:
    """The tensors of the network as it is seen, from those of the network as it is."""
    network, folds = view.network, view.folds
    if not folds:
        return tensors
    made: dict[str, Callable[[], Array]] = {name: partial(tensors.__getitem__, name) for name in tensors}
    for fold in folds:
        made[fold.weight] = partial(_weight, network, fold, tensors)
        made[fold.bias] = partial(_bias, network, fold, tensors)
    return LazyTensors(made)


def _vector(network: Network, name: str, tensors: Tensors) -> Array:
    parameter = network.parameters[name]
    if parameter.fill is not None:
        return np.full(parameter.shape, parameter.fill)
    return parameter.layout.split(tensors[name])[0].astype(np.float64)


def _factor(network: Network, fold: Fold, tensors: Tensors) -> Array:
    variance = _vector(network, fold.variance, tensors)
    factor: Array = _vector(network, fold.scale, tensors) / np.sqrt(variance + fold.epsilon)
    return factor


def _weight(network: Network, fold: Fold, tensors: Tensors) -> Array:
    parameter = network.parameters[fold.weight]
    (part,) = parameter.layout.split(tensors[fold.weight])
    axis = 1 if parameter.kind == "deconv" else 0
    factor = _factor(network, fold, tensors)
    if part.shape[axis] != len(factor):
        raise ModelError("a grouped transposed convolution is not folded", tensor=fold.weight)
    scaled = part * factor.reshape([-1 if k == axis else 1 for k in range(part.ndim)])
    return parameter.layout.join([scaled.astype(part.dtype)], parameter.shape)


def _bias(network: Network, fold: Fold, tensors: Tensors) -> Array:
    own = _vector(network, fold.bias, tensors) if fold.biased else np.zeros(1)
    moved = (own - _vector(network, fold.mean, tensors)) * _factor(network, fold, tensors)
    found: Array = (_vector(network, fold.shift, tensors) + moved).astype(np.float32)
    return found


def unfolded_tensors(view: View, tensors: Tensors) -> LazyTensors:
    """The tensors of a network as it is, from those of the network as it is seen: normalizations change nothing, but
    for a bias where layers have none."""
    network, folds = view.network, view.folds
    made: dict[str, Callable[[], Array]] = {name: partial(tensors.__getitem__, name) for name in tensors}
    for fold in folds:
        if fold.bias not in made:
            continue
        bias = made.pop(fold.bias)
        made[fold.mean] = partial(_filled, network, fold.mean, 0.0)
        made[fold.variance] = partial(_filled, network, fold.variance, 1 - fold.epsilon)
        made[fold.scale] = partial(_filled, network, fold.scale, 1.0)
        if fold.biased:
            made[fold.bias] = bias
            made[fold.shift] = partial(_filled, network, fold.shift, 0.0)
        else:
            made[fold.shift] = bias
    for name in [name for name in made if (p := network.parameters.get(name)) is not None and p.fill is not None]:
        _check_left_out(network.parameters[name], made.pop(name)())
    return LazyTensors(made)


def _filled(network: Network, name: str, value: float) -> Array:
    return np.full(network.parameters[name].shape, value, np.float32)


def _check_left_out(parameter: Parameter, array: Array) -> None:
    if np.abs(array - (parameter.fill or 0.0)).max(initial=0) > 1e-6:
        raise ModelError("neither the layer nor its normalization has a bias, and one is needed", tensor=parameter.name)
