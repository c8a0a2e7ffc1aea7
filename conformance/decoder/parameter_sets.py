"""The syntax tables of NNR_MPS and NNR_LPS (clause 6.3.4), and what they put in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from .bits import BitReader
from .errors import InvalidError


@dataclass
class Parameters:
    """What is in force for the data units that follow."""

    general_profile_idc: int = 0
    topology_indexed_reference_flag: bool = False
    parent_signalling_enabled_flag: bool = False
    nnr_pre_flag: bool = False
    qp_density: int | None = None
    quantization_parameter: int = 0
    topology_elements: list[str] = field(default_factory=list)
    performance_maps: dict[str, Any] = field(default_factory=dict)
    unification: bool = False


def nnr_model_parameter_set_payload(r: BitReader, p: Parameters) -> None:
    """``nnr_model_parameter_set_unit_payload()``."""
    r.flag()  # topology_carriage_flag
    sparsification, pruning, p.unification, decomposition = r.flag(), r.flag(), r.flag(), r.flag()
    quantization_method_flags = r.u(3)
    p.topology_indexed_reference_flag = r.flag()
    performance = False
    if p.general_profile_idc == 1:
        base_model, performance, maps_valid = r.flag(), r.flag(), r.flag()
        p.parent_signalling_enabled_flag = r.flag()
        p.nnr_pre_flag = r.flag() and p.parent_signalling_enabled_flag
        r.u(2)
        if base_model:
            r.st()  # base_model_id
        if performance or maps_valid:
            r.st()  # performance_metric_type
    else:
        r.u(7)
    if quantization_method_flags & 3:
        p.qp_density, p.quantization_parameter = r.u(3), r.i(13)
    present = {"sparsification": sparsification, "pruning": pruning, "unification": p.unification}
    p.performance_maps = _maps_to_end(r, present | {"decomposition": decomposition}, performance)


def nnr_layer_parameter_set_payload(r: BitReader, p: Parameters) -> Parameters:
    """``nnr_layer_parameter_set_unit_payload()``: what is in force after it; ``p`` is what the model has."""
    r.u(1)
    present = {name: r.flag() for name in ("sparsification", "pruning", "unification")}
    quantization_method_flags = r.u(3)
    r.u(1)
    changes: dict[str, Any] = {}
    if quantization_method_flags & 3:
        changes = {"qp_density": r.u(3), "quantization_parameter": r.i(13)}
    _maps_to_end(r, present, False)
    return Parameters(**{**vars(p), **changes})


def _maps_to_end(r: BitReader, present: Mapping[str, bool], performance: bool) -> dict[str, Any]:
    """The performance maps, and what follows them up to the end of the unit.

    Whether a count says how many entries there are, or one more, is not certain: the first reading that fits counts.
    """
    start = r.position
    for outer, inner, dimensions in product((1, 0), (0, 1), (1, 0)):
        r.position = start
        try:
            found = {name: _MAPS[name](r, outer, inner, dimensions) for name, there in present.items() if there}
            if performance:
                r.flt()  # validation_set_performance
            r.byte_alignment()
        except InvalidError:
            continue
        if r.left == 0:
            return found
    raise InvalidError("a parameter set does not end with its last syntax element")


def _sparsification_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"sparsification_threshold": r.flt(), "non_zero_ratio": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_thresholds", entries)


def _pruning_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"pruning_ratio": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_pruning_ratios", entries)


def _unification_performance_map(r: BitReader, outer: int, inner: int, dimensions: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry: dict[str, Any] = {"reshaped_tensor_dimensions": [r.ue(7) for _ in range(r.ue(1) - dimensions)]}
        r.byte_alignment()
        entry["super_block_dimensions"] = [r.u(8) for _ in range(r.u(8) - dimensions)]
        entry["block_dimensions"] = [r.u(8) for _ in range(r.u(8) - dimensions)]
        entry |= {"unification_threshold": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_thresholds", entries)


def _decomposition_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"mse_threshold": r.flt(), "nn_accuracy": r.flt(), "nn_reduction_ratio": r.flt()}
        classes = r.u(16)
        entries.append(entry | {"count_classes": classes, "nn_class_accuracy": _floats(r, classes - inner)})
    return _as_lists("count_thresholds", entries)


def _class_accuracies(r: BitReader, inner: int) -> dict[str, Any]:
    count, bitmask = r.u(8), r.ue(7)
    accuracies = _floats(r, count - inner)
    return {"count_classes": len(accuracies), "class_bitmask": bitmask, "nn_class_accuracy": accuracies}


def _floats(r: BitReader, count: int) -> list[float]:
    return [r.flt() for _ in range(count)]


def _as_lists(counter: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {counter: len(entries)} | {key: [entry[key] for entry in entries] for key in (entries or [{}])[0]}


_MAPS: dict[str, Callable[[BitReader, int, int, int], dict[str, Any]]] = {
    "sparsification": _sparsification_performance_map,
    "pruning": _pruning_performance_map,
    "unification": _unification_performance_map,
    "decomposition": _decomposition_performance_map,
}
