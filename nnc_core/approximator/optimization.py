"""Quantization parameters and local scaling chosen by what they do to a model's quality (ISO/IEC 15938-18, 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.data import ApproxData, ApproxInfo
from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import derived_name
from nnc_core.nnr_model.evaluation import Evaluation
from nnc_core.nnr_model.qp_search import QpSearch, coarsest
from nnc_core.tables.blocks import Member

__all__ = ["Scalings", "is_asked_for", "optimized"]

Tensors = Mapping[str, NDArray[Any]]
Scalings = Mapping[str, NDArray[np.float32]]
"""One factor for each row of some weights, by name."""

Attempt = Callable[[ApproxInfo, Scalings], Tensors]
"""The tensors that a decoder makes of a model with these scalings when it is quantized so."""

_SCALING_OCTAVES = 8
"""How fine a scaling is, whose values are about 1: steps of 2 ** -8."""


def is_asked_for(info: ApproxInfo) -> bool:
    """Whether quantization parameters or local scaling are to be optimised."""
    return any(info.get(key) for key in ("opt_qp", "iter_opt", "ioq", "lsa"))


def optimized(
    info: ApproxInfo, data: ApproxData, attempt: Attempt, evaluation: Evaluation
) -> tuple[ApproxInfo, Scalings]:
    """The settings with the coarsest ``qp`` that are good enough, and the scalings of weights that gain by one.

    Only weights are moved: tensors with two dimensions or more, and factors. Raises `ModelError` where nothing is good
    enough, and where there are no ``qp``.
    """
    found = _coarser(info, data, attempt, evaluation, {})
    if not info.get("lsa"):
        return found, {}
    found = _with_scaling_qp(found, data)
    scalings = _scalings(found, data, attempt, evaluation)
    return (_coarser(found, data, attempt, evaluation, scalings) if scalings else found), scalings


def _coarser(
    info: ApproxInfo, data: ApproxData, attempt: Attempt, evaluation: Evaluation, scalings: Scalings
) -> ApproxInfo:
    density = data.get("qp_density", 2)
    names = [name for name in _weights(data, info) if name in info["qp"]]
    tried: dict[tuple[int, ...], bool] = {}

    def holds(qp: Mapping[str, int]) -> bool:
        key = tuple(qp.values())
        if key not in tried:
            tried[key] = evaluation.accepts(attempt(_with_qp(info, qp), scalings))
        return tried[key]

    qp = coarsest({name: info["qp"][name] for name in names}, holds, _search(info), (1 << (5 + density)) - 1)
    return _with_qp(info, qp)


def _search(info: ApproxInfo) -> QpSearch:
    flags = (bool(info.get("opt_qp")), bool(info.get("iter_opt")), bool(info.get("ioq")))
    try:
        return QpSearch(*flags, info.get("qp_step", 1), info.get("max_iterations", 64))
    except ValueError as error:
        raise ModelError(str(error)) from None


def _with_qp(info: ApproxInfo, qp: Mapping[str, int]) -> ApproxInfo:
    changed = ApproxInfo(**info)
    changed["qp"] = {**info.get("qp", {}), **qp}
    return changed


def _weights(data: ApproxData, info: ApproxInfo) -> list[str]:
    """The names under which weights have their ``qp``, the largest first; factors may have that of their product."""
    sizes: dict[str, int] = {}
    for name, array in data.get("parameters", {}).items():
        if np.ndim(array) > 1:
            own = name if name in info.get("qp", {}) else _product(name)
            sizes[own] = sizes.get(own, 0) + np.size(array)
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def _product(name: str) -> str:
    return name.removesuffix(derived_name("", Member.G)).removesuffix(derived_name("", Member.H))


# --- local scaling ----------------------------------------------------------------------------------------------------


def _with_scaling_qp(info: ApproxInfo, data: ApproxData) -> ApproxInfo:
    """Settings that say how fine the scalings are."""
    fine = -_SCALING_OCTAVES << data.get("qp_density", 2)
    scalings = {derived_name(name, Member.SCALING): fine for name in _weights(data, info)}
    return _with_qp(info, {**scalings, **info.get("qp", {})})


def _scalings(info: ApproxInfo, data: ApproxData, attempt: Attempt, evaluation: Evaluation) -> Scalings:
    """The scalings that make the model better, tried one after the other, those of large weights first."""
    quantized = attempt(info, {})
    chosen: dict[str, NDArray[np.float32]] = {}
    best = evaluation.score(quantized)
    for name, scaling in _candidates(info, data, quantized):
        score = evaluation.score(attempt(info, {**chosen, name: scaling}))
        if score > best:
            chosen[name], best = scaling, score
    return chosen


def _candidates(info: ApproxInfo, data: ApproxData, quantized: Tensors) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """For each row, the factor with the least squared error, and the one that gives the row its length back."""
    parameters = data.get("parameters", {})
    for name in _weights(data, info):
        if name not in parameters or name not in quantized or derived_name(name, Member.SCALING) in parameters:
            continue
        original = parameters[name].reshape(len(parameters[name]), -1).astype(np.float64)
        coarse = quantized[name].reshape(original.shape).astype(np.float64)
        energy = np.square(coarse).sum(1)
        for above in (np.square(original).sum(1) ** 0.5 * energy**0.5, (original * coarse).sum(1)):
            yield name, np.divide(above, energy, out=np.ones_like(energy), where=energy > 0).astype(np.float32)
