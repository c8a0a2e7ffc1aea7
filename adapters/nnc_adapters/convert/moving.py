"""The weights of the source in the layout of the target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.folding import folded_tensors, unfolded_tensors
from nnc_adapters.convert.mapping import apply
from nnc_adapters.convert.matching import Matched
from nnc_adapters.convert.network import Parameter
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core.errors import ModelError

__all__ = ["moved"]

Array = NDArray[Any]
_ALMOST = 1e-6


def moved(matched: Matched, tensors: Mapping[str, Array]) -> LazyTensors:
    """The tensors of the target, made of ``tensors``, those of the source, when they are asked for.

    `ModelError` where a layer of the target is made without a weight that the source has.
    """
    tensors = folded_tensors(matched.views[0], tensors)
    complete = {ref.name for ref in matched.pairs} - set(matched.missing)
    for name in complete:
        parameter = matched.target.parameters[name]
        if parameter.fill is not None:
            _check_neutral(parameter, _joined(matched, parameter, tensors), matched.pairs[PartOf(name, 0)])
    names = [n for n, p in matched.target.parameters.items() if p.fill is None and n in complete | matched.raw.keys()]
    found = LazyTensors({name: partial(_tensor, matched, name, tensors) for name in names})
    return unfolded_tensors(matched.views[1], found) if matched.views[1].folds else found


def _check_neutral(parameter: Parameter, array: Array, given: PartOf) -> None:
    if parameter.fill is not None and np.abs(array - parameter.fill).max(initial=0) > _ALMOST:
        text = "ones" if parameter.fill else "zeros"
        raise ModelError(
            f"the target's layer was made without it, which is right for {text} only; make the layer with it",
            tensor=given.name,
        )


def _tensor(matched: Matched, name: str, tensors: Mapping[str, Array]) -> Array:
    entry = matched.raw.get(name)
    if entry is not None:
        return apply(entry.steps or (), [tensors[source] for source in entry.sources])
    return _joined(matched, matched.target.parameters[name], tensors)


def _joined(matched: Matched, parameter: Parameter, tensors: Mapping[str, Array]) -> Array:
    split: dict[str, list[Array]] = {}
    parts = []
    for place in range(len(parameter.parts)):
        wanted = PartOf(parameter.name, place)
        given = matched.pairs[wanted]
        if given.name not in split:
            split[given.name] = _split(matched.source.parameters[given.name], tensors)
        parts.append(_ordered(matched, wanted, split[given.name][given.place]))
    return parameter.layout.join(parts, parameter.shape)


def _split(parameter: Parameter, tensors: Mapping[str, Array]) -> list[Array]:
    if parameter.fill is not None:
        return [np.full(part.shape, parameter.fill, np.float32) for part in parameter.parts]
    return parameter.layout.split(tensors[parameter.name])


def _ordered(matched: Matched, wanted: PartOf, array: Array) -> Array:
    for axis in range(array.ndim):
        taken = matched.orders.taken.get((wanted, axis))
        if taken is not None:
            array = array.take(taken, axis)
    return array
