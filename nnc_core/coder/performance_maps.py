"""Performance maps between dictionaries (Part 18, Table 4) and the entries in a parameter set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from nnc_core.errors import ModelError
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.performance_maps import DecompositionEntry, PruningEntry, SparsificationEntry, UnificationEntry


class _Map(NamedTuple):
    """A map: its flag in an NNR_MPS, the key that counts its entries, and the field of an entry for each other key."""

    flag: str
    counter: str
    entry: type
    fields: Mapping[str, str]


def _fields(prefix: str, *own: str) -> dict[str, str]:
    """The keys that are called like their fields, and those that all maps with class accuracies share."""
    shared = ("nn_accuracy", "class_bitmask", "nn_class_accuracy")
    return {**{key: key for key in own}, **{key: f"{prefix}_{key}" for key in shared}}


_MAPS: Final = {
    "sparsification": _Map(
        "mps_sparsification_flag",
        "count_thresholds",
        SparsificationEntry,
        _fields("spm", "sparsification_threshold", "non_zero_ratio"),
    ),
    "pruning": _Map("mps_pruning_flag", "count_pruning_ratios", PruningEntry, _fields("ppm", "pruning_ratio")),
    "unification": _Map(
        "mps_unification_flag",
        "count_thresholds",
        UnificationEntry,
        _fields(
            "upm",
            "reshaped_tensor_dimensions",
            "super_block_dimensions",
            "block_dimensions",
            "unification_threshold",
        ),
    ),
    "decomposition": _Map(
        "mps_decomposition_performance_map_flag",
        "count_thresholds",
        DecompositionEntry,
        {
            "mse_threshold": "mse_threshold",
            "nn_accuracy": "dpm_nn_accuracy",
            "nn_reduction_ratio": "nn_reduction_ratio",
            "nn_class_accuracy": "dpm_nn_class_accuracy",
        },
    ),
}
_LISTS = ("nn_class_accuracy", "reshaped_tensor_dimensions", "super_block_dimensions", "block_dimensions")
_OPTIONAL = {"class_bitmask": 0, **dict.fromkeys(_LISTS, ())}


def parameter_set_fields(maps: Mapping[str, Any], *, layer: bool = False) -> dict[str, Any]:
    """The fields of an NNR_MPS, or of an NNR_LPS for a ``layer``, that carry ``maps``.

    ``maps`` may have the keys sparsification, pruning, unification and decomposition, the last not for a layer. Raises
    `ModelError` for other keys, and for lists that do not fit together.
    """
    known = [name for name in _MAPS if not (layer and name == "decomposition")]
    for name in maps:
        if name not in known:
            raise ModelError(f"there is no performance map {name!r}, only {', '.join(known)}")
    fields: dict[str, Any] = {}
    for name in known:
        fields[_flag(name, layer)] = name in maps
        fields[f"{name}_performance_map"] = _entries(name, maps[name]) if name in maps else ()
    return fields


def performance_maps(parameters: ModelParameterSet | LayerParameterSet) -> dict[str, dict[str, Any]]:
    """The maps that a parameter set has, as `parameter_set_fields` takes them."""
    layer = isinstance(parameters, LayerParameterSet)
    present = (name for name in _MAPS if getattr(parameters, _flag(name, layer), False))
    return {name: _lists(_MAPS[name], getattr(parameters, f"{name}_performance_map")) for name in present}


def _flag(name: str, layer: bool) -> str:
    return _MAPS[name].flag.replace("mps_", "lps_" if layer else "mps_", 1)


def _entries(name: str, given: Mapping[str, Any]) -> tuple[Any, ...]:
    described = _MAPS[name]
    required = next(iter(described.fields))
    count = len(given.get(required, ()))
    if given.get(described.counter, count) != count:
        raise ModelError(f"{described.counter} of the {name} map is {given[described.counter]}, but there are {count}")
    columns = [_column(name, key, given, count) for key in described.fields]
    return tuple(
        described.entry(**dict(zip(described.fields.values(), row, strict=True))) for row in zip(*columns, strict=True)
    )


def _column(name: str, key: str, given: Mapping[str, Any], count: int) -> Sequence[Any]:
    column = given.get(key) or ([_OPTIONAL[key]] * count if key in _OPTIONAL else [])
    if len(column) != count:
        raise ModelError(f"{key} of the {name} map has {len(column)} entries, expected {count}")
    return [tuple(each) for each in column] if key in _LISTS else column


def _lists(described: _Map, entries: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {described.counter: len(entries)}
    for key, field in described.fields.items():
        values = [getattr(entry, field) for entry in entries]
        found[key] = [list(value) for value in values] if key in _LISTS else values
    if "nn_class_accuracy" in described.fields:
        found["count_classes"] = [len(classes) for classes in found["nn_class_accuracy"]]
    return found
