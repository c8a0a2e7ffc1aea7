"""The dictionary that configures an encoder (ISO/IEC 15938-18, Table 11), and parameters that are sent out of band."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypedDict

from nnc_core.errors import ModelError
from nnc_core.syntax.context import InputParameters


class EncInfo(TypedDict, total=False):
    """Part 18, Table 11; what is missing is off, or has the value in brackets.

    ``cabac_unary_length_minus1`` (10), ``param_opt_flag`` (1), ``nnr_pt_block_enabled_flag`` (1),
    ``row_skip_enabled_flag`` (1), ``general_profile_id`` (1). ``max_ndu_nnr_unit_size`` in bytes counts more than the
    number of parts in ``partial_data_counter``. ``temporal_context_modeling_flag`` lets the encoder use temporal
    contexts and the history where that is smaller. ``bt_signaling`` codes tensors of two or three levels by codebooks.
    """

    cabac_unary_length_minus1: int
    param_opt_flag: int
    nnr_pt_block_enabled_flag: int
    partial_data_counter: int
    max_ndu_nnr_unit_size: int
    node_id_present_flag: int
    device_id: int
    parent_node_id_present_flag: int
    parent_node_id_type: int
    parent_device_id: int
    mps_topology_indexed_reference_flag: bool
    temporal_context_modeling_flag: int
    row_skip_enabled_flag: int
    encode_tpl_only: bool
    out_of_band_signaling: bool
    general_profile_id: int
    bt_signaling: bool
    mps_parent_signalling_enabled_flag: int


def input_parameters_to_json(parameters: Mapping[str, InputParameters]) -> str:
    """Parameters that are sent out of band, as a JSON object by tensor name.

    >>> input_parameters_to_json({"w": InputParameters(tensor_dimensions=(2, 3))})
    '{"w": {"tensor_dimensions": [2, 3], "count_tensor_dimensions": 2}}'
    """
    return json.dumps({name: _described(each) for name, each in parameters.items()})


def _described(parameters: InputParameters) -> dict[str, Any]:
    known = {key: value for key, value in asdict(parameters).items() if value is not None}
    if parameters.tensor_dimensions is not None:
        known["count_tensor_dimensions"] = len(parameters.tensor_dimensions)
    return known


def input_parameters_from_json(text: str | bytes) -> dict[str, InputParameters]:
    """Read what `input_parameters_to_json` writes; `ModelError` for anything else."""
    try:
        data = json.loads(text)
        return {str(name): _input_parameters(name, values) for name, values in data.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"the parameters sent out of band are not a JSON object by tensor name: {error}") from None


def _input_parameters(name: str, values: Mapping[str, Any]) -> InputParameters:
    known = {field.name for field in fields(InputParameters)}
    dimensions = values.get("tensor_dimensions")
    if dimensions is not None and values.get("count_tensor_dimensions", len(dimensions)) != len(dimensions):
        raise ModelError("count_tensor_dimensions disagrees with tensor_dimensions", tensor=name)
    numbers = [value for key, value in values.items() if key != "tensor_dimensions"] + list(dimensions or ())
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ModelError("has a parameter that is not a number, or negative", tensor=name)
    given = {key: value for key, value in values.items() if key in known and key != "tensor_dimensions"}
    return InputParameters(None if dimensions is None else tuple(dimensions), **given)
