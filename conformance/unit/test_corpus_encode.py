"""Coding what the corpus decodes to gives its bytes again: payloads, headers and whole bitstreams, and the quantizers.

Payloads are coded by the native engine, and by the reference where they are small; the reference quantizers have
their own test. Here the temporal contexts and histories of updates are in scope, with the arrays that the corpus
says are known from the step before.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conformance.support.corpus import ModelStep, as_matrix, for_each, model_names, model_steps
from nnc_core import NnrFile
from nnc_core.approximator import native as approximator
from nnc_core.bitstream import Bitstream, BitstreamWriter, DataUnit
from nnc_core.coder.decoder import decode_levels, qp_bits, shapes
from nnc_core.coder.history import Histories
from nnc_core.coder.payload import encode_payload
from nnc_core.entropy import native, reference
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import NnrUnitType, PayloadType
from nnc_core.tables.entry_point import EntryPoint

SMALL = 600  # elements, for the reference coder
FEW = 20  # units of a case, likewise
QUANTIZED = PayloadType.NNR_PT_FLOAT


class CodedUnit(NamedTuple):
    """A data unit with one arithmetic-coded tensor, and what the corpus says about it."""

    name: str
    header: CompressedDataUnitHeader
    payload: bytes
    levels: NDArray[np.int32]
    parameters: TensorParameters
    qp: tuple[int, int] | None


def coded_units(case: str) -> Iterator[CodedUnit]:
    """The units of all steps; ``before`` has, by name, the state that the steps so far left."""
    before: dict[str, NDArray[Any]] = {}
    for step in model_steps(case):
        bitstream = Bitstream(step.bitstream, input_parameters=step.input_parameters.get)
        for name, unit in bitstream.tensors.items():
            if len(unit.names) > 1:
                continue
            if unit.header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
                yield coded_unit(step, bitstream, name, unit, before)
        state = [name for name in step.expected_names if name.endswith((".base", ".hist"))]
        before |= {name: step.expected[name] for name in state}


def coded_unit(
    step: ModelStep, bitstream: Bitstream, name: str, unit: DataUnit, before: dict[str, NDArray[Any]]
) -> CodedUnit:
    told = next(tensor for tensor in step.config["tensors"] if tensor["name"] == name)
    density = step.config["encoder"]["qp_density"]
    quantized = unit.header.nnr_compressed_data_unit_payload_type == QUANTIZED
    return CodedUnit(
        name=name,
        header=unit.header,
        payload=bytes(unit.payload),
        levels=as_matrix(step.expected[f"{name}.int"]),
        parameters=parameters(bitstream.general_profile_idc, unit.header, name, before),
        qp=(told["qp"] - step.config["encoder"]["mps_quantization_parameter"], 6 + density) if quantized else None,
    )


def parameters(
    profile: int, h: CompressedDataUnitHeader, name: str, before: dict[str, NDArray[Any]]
) -> TensorParameters:
    base = before.get(f"{name}.base") if h.temporal_context_modeling_flag else None
    history = before.get(f"{name}.hist")
    return TensorParameters(
        general_profile_idc=profile,
        cabac_unary_length_minus1=h.cabac_unary_length_minus1,
        dq_flag=h.dq_flag and h.nnr_compressed_data_unit_payload_type == QUANTIZED,
        scan_order=h.scan_order,
        parent_node_id_present_flag=h.parent_node_id_present_flag,
        codebook_size=h.integer_codebook.codebook_size if h.integer_codebook else 0,
        codebook_zero_offset=h.integer_codebook.zero_offset if h.integer_codebook else 0,
        base=None if base is None else as_matrix(base).astype(np.int32),
        history=None if history is None else as_matrix(history).astype(np.uint8),
    )


def choices_in(unit: CodedUnit, module: ModuleType) -> TensorChoices:
    decoder = module.Decoder(unit.payload)
    if unit.qp:
        assert decoder.iae(unit.qp[1]) == unit.qp[0]
    decoded = decoder.tensor(*unit.levels.shape, unit.parameters)
    np.testing.assert_array_equal(decoded.levels, unit.levels)
    assert decoder.finish() == len(unit.payload)
    choices: TensorChoices = decoded.choices
    return choices


def coded(unit: CodedUnit, module: ModuleType) -> tuple[bytes, tuple[EntryPoint, ...]]:
    choices = choices_in(unit, module)
    encoder = module.Encoder()
    if unit.qp:
        encoder.iae(*unit.qp)
    encoder.tensor(unit.levels, unit.parameters, choices)
    payload: bytes = encoder.finish()
    return payload, tuple(encoder.entry_points[0])


def with_coded_units() -> list[str]:
    """Cases with arithmetic-coded tensors in units of their own."""
    return [case for case in model_names() if any(map(has_coded_units, model_steps(case)))]


def has_coded_units(step: ModelStep) -> bool:
    return any(t["method"] != "raw_float" and t["block"] is None for t in step.config["tensors"])


@for_each("case", with_coded_units())
def test_coding_the_integers_of_the_corpus_gives_its_payloads_and_entry_points(case: str) -> None:
    units = list(coded_units(case))
    assert units
    for unit in units:
        assert coded(unit, native) == (unit.payload, unit.header.entry_points), unit.name


@for_each("case", with_coded_units())
def test_the_reference_codes_the_small_tensors_of_the_corpus_to_the_same_bytes(case: str) -> None:
    small = (unit for unit in coded_units(case) if unit.levels.size <= SMALL)
    for unit in islice(small, FEW):
        assert coded(unit, reference) == (unit.payload, unit.header.entry_points), unit.name


def rewritten(step: ModelStep, bitstream: Bitstream) -> bytes:
    """Start unit, parameters and data units, from their records alone."""
    assert bitstream.mps is not None
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, bitstream.mps, bitstream.general_profile_idc)
    for unit in bitstream.data_units:
        writer.data_unit(unit.header, unit.payload)
    assert writer.size == len(stream.getvalue())
    return stream.getvalue()


@for_each("case", model_names())
def test_writing_the_records_of_the_corpus_gives_its_bitstreams(case: str) -> None:
    for step in model_steps(case):
        bitstream = Bitstream(step.bitstream, input_parameters=step.input_parameters.get)
        kept = [unit for unit in bitstream.units if unit.type != NnrUnitType.NNR_TPL]
        expected = b"".join(step.bitstream[unit.offset : unit.offset + unit.size] for unit in kept)
        assert rewritten(step, bitstream) == expected


@for_each("case", model_names())
def test_coding_the_levels_of_any_unit_gives_its_payload_and_entry_points(case: str) -> None:
    """With what the encoder chose; blocks have their tensors in one payload, updates build on each other."""
    history: Histories = {}
    for step in model_steps(case):
        file = NnrFile(step.bitstream, input_parameters=step.input_parameters, history=history)
        for unit in file.bitstream.data_units:
            if unit.header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
                check_payload(unit, history)
        history = file.history_after()


def check_payload(unit: DataUnit, history: Histories) -> None:
    decoded = decode_levels(unit, history)
    tensors = list(decoded.values())
    parameters = [shape.parameters for shape in shapes(unit, history)]
    payload, points = encode_payload(tensors, parameters, qp_bits(unit))
    assert payload == bytes(unit.payload)
    assert points == [list(tensor.entry_points) for tensor in tensors]


REWORKED = ("lambda_scale", "integer_aligned_bitdepth", "codebook_mode", "batch_norm_folding")


def quantized_tensors(case: str) -> Iterator[tuple[ModelStep, dict[str, Any]]]:
    """Tensors whose integers are the plain result of quantizing values that are known."""
    for step in model_steps(case):
        if any(step.config["encoder"]["quantizer"].get(option) for option in REWORKED):
            continue
        for tensor in step.config["tensors"]:
            known = {f"{tensor['name']}.orig", f"{tensor['name']}.int"} <= set(step.expected_names)
            if tensor["method"] == "uniform" and known:
                yield step, tensor


@for_each("case", [case for case in model_names() if any(quantized_tensors(case))])
def test_the_native_quantizers_give_the_integers_of_the_corpus(case: str) -> None:
    for step, tensor in quantized_tensors(case):
        values, expected = (as_matrix(step.expected[f"{tensor['name']}.{kind}"]) for kind in ("orig", "int"))
        if tensor["dq_flag"]:
            # Zeros stay zeros here; as small numbers they may become a step, as in the corpus.
            values = np.where(values == 0, np.finfo(np.float32).tiny, values)
            found = approximator.quantize_dependent(values, tensor["step_size"], tensor["scan_order"])
        else:
            found = approximator.quantize_uniform(values, tensor["step_size"])
        np.testing.assert_array_equal(found, expected, err_msg=tensor["name"])


@for_each("case", model_names())
def test_native_reconstruction_gives_the_values_of_the_corpus(case: str) -> None:
    for step in model_steps(case):
        for tensor in step.config["tensors"]:
            name = tensor["name"]
            if tensor["method"] == "uniform" and {f"{name}.int", f"{name}.rec"} <= set(step.expected_names):
                levels = np.ascontiguousarray(step.expected[f"{name}.int"])
                values = approximator.reconstruct(levels, tensor["step_size"])
                assert values.tobytes() == step.expected[f"{name}.rec"].tobytes(), name
