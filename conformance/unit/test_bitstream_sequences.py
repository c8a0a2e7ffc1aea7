"""Any legal sequence of units, drawn at random, is written, read and written again alike."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from math import prod
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_core.bitstream import Bitstream, BitstreamWriter, Division, UnitRecord
from nnc_core.bitstream.validate import violations
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    ModelParameterSet,
    SyntaxContext,
    coded_shapes,
    nnr_compressed_data_unit_header,
    nnr_model_parameter_set_payload,
    sample,
    unit,
)
from nnc_core.syntax.layer_parameter_set import LayerParameterSet, nnr_layer_parameter_set
from nnc_core.syntax.pruning import PruningTopologyContainer, nnr_pruning_topology_container
from nnc_core.syntax.unit_types import header_bytes
from nnc_core.tables.code_points import NnrUnitType, PayloadType

LIMITS = Limits(tensor_elements=512)
QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)


class Sequence:
    """Draws units and writes them; ``headers`` has the records of data units and layer parameter sets in order."""

    def __init__(self, source: Random) -> None:
        self.source = source
        self.headers: list[Any] = []
        self.names = [f"tensor.{i}" for i in range(300)]
        source.shuffle(self.names)
        self.stream = io.BytesIO()
        profile = source.randrange(2)
        mps = self._parameters(profile)
        references = tuple(self.names) if mps.mps_topology_indexed_reference_flag else ()
        division = source.choice((Division(), Division(parts=3), Division(max_unit_size=4500)))
        self.writer = BitstreamWriter(self.stream, mps, profile, LIMITS, references=references, division=division)
        self.quantized = mps.mps_qp_density is not None
        self.mps = mps

    def _parameters(self, profile: int) -> ModelParameterSet:
        context = SyntaxContext(profile, limits=LIMITS)
        mps = sample(lambda s, p: nnr_model_parameter_set_payload(s, p, context), ModelParameterSet, self.source)
        return replace(mps, topology_carriage_flag=True)

    def write(self) -> bytes:
        self._descriptions()
        for _ in range(self.source.randrange(6)):
            self.source.choice((self._data, self._data, self._layer, self._aggregate))()
        return self.stream.getvalue()

    def _descriptions(self) -> None:
        blob = self.source.randbytes(self.source.choice((0, 3, 40, 9000)))
        if self.source.random() < 0.5:
            self.writer.topology(Topology(self.source.choice((0, 1, 2, 3, 4)), blob, blob[:5], blob[5:7]))
        if self.source.random() < 0.5:
            context = self.writer.context
            self.writer.pruning(
                sample(
                    lambda s, c: nnr_pruning_topology_container(s, c, context), PruningTopologyContainer, self.source
                )
            )

    def _layer(self) -> None:
        context = self.writer.context
        lps = sample(lambda s, p: nnr_layer_parameter_set(s, p, context), LayerParameterSet, self.source)
        lps = replace(lps, lps_self_contained_flag=False)
        self.writer.layer_parameter_set(lps)
        self.headers.append(lps)

    def _aggregate(self) -> None:
        with self.writer.aggregate(self.source.randrange(2), entry_points=self.source.random() < 0.5):
            self._layer()
            for _ in range(self.source.randrange(1, 4)):
                self._data()

    def _data(self) -> None:
        header = self._header()
        size = 4 * prod(coded_shapes(header, self.writer.context)[0])
        raw = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT
        self.writer.data_unit(header, self.source.randbytes(size if raw else self.source.randrange(200)))
        self.headers.append(header)

    def _header(self) -> CompressedDataUnitHeader:
        """A header with names that were not used so far, of a kind that the parameter sets in force allow."""
        context = replace(self.writer.context, mps_topology_indexed_reference_flag=False)
        while True:
            h = sample(
                lambda s, h: nnr_compressed_data_unit_header(s, h, context), CompressedDataUnitHeader, self.source
            )
            if self.quantized or h.nnr_compressed_data_unit_payload_type not in QUANTIZED:
                break
        ids = h.topology_elements_ids_list
        if h.nnr_multiple_topology_elements_present_flag:
            count = len(ids.topology_elem_id_list)
            ids = replace(ids, topology_elem_id_list=tuple(self.names.pop() for _ in range(count)))
            return replace(h, topology_elements_ids_list=ids)
        return replace(h, topology_elem_id=self.names.pop())


def written_again(bitstream: Bitstream, data: bytes) -> bytes:
    """The bytes of all units, from their records; what an aggregate holds is written as its payload."""
    held = {u.index: b"" for u in bitstream.units if u.type == NnrUnitType.NNR_AGG}
    whole = b""
    for found in reversed(bitstream.units):
        again = coded(found, bitstream, held)
        if found.within is None:
            whole = again + whole
        else:
            held[found.within] = again + held[found.within]
    return whole


def coded(found: UnitRecord, bitstream: Bitstream, held: dict[int, bytes]) -> bytes:
    assert found.header is not None
    header = header_bytes(found.type, found.header, found.context)
    payload = held.get(found.index) or bitstream.payload(found)
    return unit(NnrUnitType(found.type), header, payload, found.partial_data_counter)


@settings(max_examples=80, deadline=None)
@given(source=st.randoms(use_true_random=True))
def test_a_sequence_of_units_is_read_and_written_again_alike(source: Random) -> None:
    sequence = Sequence(source)
    data = sequence.write()
    bitstream = Bitstream(data, LIMITS)
    assert bitstream.mps == sequence.mps
    found = [u.header for u in bitstream.units if isinstance(u.header, LayerParameterSet)]
    assert found == [h for h in sequence.headers if isinstance(h, LayerParameterSet)]
    told = [h for h in sequence.headers if isinstance(h, CompressedDataUnitHeader)]
    assert len(bitstream.data_units) == len(told)
    for data_unit, header in zip(bitstream.data_units, told, strict=True):
        assert data_unit.header.tensor_dimensions == header.tensor_dimensions
        assert data_unit.header.entry_points == header.entry_points
    assert written_again(bitstream, data) == data
    assert [v.rule.id for v in violations(data, LIMITS) if v.rule.id != "factors-together"] == []


@pytest.mark.parametrize("seed", range(3))
def test_many_sequences_have_every_kind_of_unit(seed: int) -> None:
    kinds: Counter[int] = Counter()
    for number in range(12):
        bitstream = Bitstream(Sequence(Random(1000 * seed + number)).write(), LIMITS)
        kinds.update(found.type for found in bitstream.units)
    assert set(kinds) == set(NnrUnitType)
