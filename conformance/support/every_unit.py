"""Small valid bitstreams that together have every kind of unit besides plain data units."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import nnc_core
from conformance.support import handmade
from nnc_core.bitstream import BitstreamWriter, Division
from nnc_core.nnr_model import Topology
from nnc_core.syntax import CompressedDataUnitHeader, ModelParameterSet
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.performance_maps import (
    MAP_COUNTS,
    DecompositionEntry,
    PruningEntry,
    SparsificationEntry,
    UnificationEntry,
)
from nnc_core.syntax.pruning import BitMask, DictionaryLayout, PrunedElement, PruningTopologyContainer
from nnc_core.tables.code_points import AggregateUnitType, PruningRepresentationType, TopologyStorageFormat

QUANTIZED = ModelParameterSet(mps_quantization_method_flags=1, mps_qp_density=2, mps_quantization_parameter=0)
LEVELS = np.array([[1, -2, 3], [0, 5, 0]], np.int32)
PAYLOAD = handmade.payload_of(LEVELS)
NAMES = ("u", "v", "w")

SPARSIFICATION = (
    SparsificationEntry(0.5, 0.25, 0.75, 5, (0.5, 0.125)),
    SparsificationEntry(1.5, 0.125, 0.5, 200, (0.25,)),
)
PRUNING = (PruningEntry(0.5, 0.75, 3, (0.5, 0.25)), PruningEntry(0.75, 0.5, 0, ()))
UNIFICATION = (
    UnificationEntry((64, 9), (8, 3), (4, 1), 0.5, 0.75, 1, (0.5,)),
    UnificationEntry((300,), (), (2,), 0.25, 0.5, 0, ()),
)
DECOMPOSITION = (DecompositionEntry(0.5, 0.75, 0.25, (0.5, 0.125, 0.25)), DecompositionEntry())
ALL_MAPS = replace(
    QUANTIZED,
    mps_sparsification_flag=True,
    mps_pruning_flag=True,
    mps_unification_flag=True,
    mps_decomposition_performance_map_flag=True,
    validation_set_performance_present_flag=True,
    performance_metric_type="top-1",
    validation_set_performance=0.5,
    sparsification_performance_map=SPARSIFICATION,
    pruning_performance_map=PRUNING,
    unification_performance_map=UNIFICATION,
    decomposition_performance_map=DECOMPOSITION,
)
LAYER = LayerParameterSet(
    lps_quantization_method_flags=1,
    lps_qp_density=3,
    lps_quantization_parameter=-7,
    lps_sparsification_flag=True,
    lps_pruning_flag=True,
    lps_unification_flag=True,
    sparsification_performance_map=SPARSIFICATION,
    pruning_performance_map=PRUNING,
    unification_performance_map=UNIFICATION,
)
MASK = BitMask(11, bytes([0b10110011, 0b01000000]))
DICTIONARY = (PrunedElement("u", dim=(2, 3)), PrunedElement("w", dim=(300,)))
INDICES = (PrunedElement(element_id_index=0, dim=(2, 3)), PrunedElement(element_id_index=2, dim=()))


def tensor(name: str = "w", **fields: Any) -> CompressedDataUnitHeader:
    """The header of a data unit whose payload is `PAYLOAD`."""
    return CompressedDataUnitHeader(topology_elem_id=name, tensor_dimensions=LEVELS.shape, **fields)


def made(fill: Callable[[BitstreamWriter], object], mps: ModelParameterSet = QUANTIZED, **options: Any) -> bytes:
    """The bitstream that ``fill`` puts together."""
    stream = io.BytesIO()
    fill(BitstreamWriter(stream, replace(mps), **options))
    return stream.getvalue()


def bitstreams() -> Iterator[tuple[str, bytes]]:
    """Every bitstream, by a name for reports."""
    for counts in MAP_COUNTS:
        name = f"performance maps, counts {tuple(counts)}"
        yield name, made(lambda w: w.data_unit(tensor(), PAYLOAD), replace(ALL_MAPS, map_counts=counts))
    tall = np.linspace(-1, 1, 90, dtype=np.float32).reshape(30, 3)
    yield "entry points", nnc_core.encode({"w": tall}, parameters=nnc_core.CodingParameters(scan_order=1, dq_flag=True))
    yield "layer parameter sets", made(layers)
    for entry_points in (False, True):
        yield f"aggregate, entry points {entry_points}", made(lambda w, e=entry_points: aggregate(w, e))  # type: ignore[misc]
    yield "aggregate in an aggregate", made(nested)
    for number, container in enumerate(containers()):
        yield f"pruning, {number}", made(lambda w, c=container: w.pruning(c))  # type: ignore[misc]
    indexed = replace(QUANTIZED, mps_topology_indexed_reference_flag=True)
    yield "references", made(references, indexed, references=NAMES)
    yield "parts", made(parts, division=Division(parts=3))
    yield "parts by size", made(parts, division=Division(max_unit_size=24))


def layers(writer: BitstreamWriter) -> None:
    """Two layer parameter sets, and tensors before, between and after them."""
    writer.data_unit(tensor("u"), PAYLOAD)
    writer.layer_parameter_set(replace(LAYER))
    writer.data_unit(tensor("v"), handmade.payload_of(LEVELS, qp_bits=9))
    writer.layer_parameter_set(LayerParameterSet())
    writer.data_unit(tensor("w"), PAYLOAD)


def aggregate(writer: BitstreamWriter, entry_points: bool = False) -> None:
    """An aggregate with a layer parameter set, which ends with it."""
    with writer.aggregate(AggregateUnitType.NNR_AGG_SLF, entry_points=entry_points):
        writer.layer_parameter_set(replace(LAYER, lps_self_contained_flag=True))
        writer.data_unit(tensor("v"), handmade.payload_of(LEVELS, qp_bits=9))
    writer.data_unit(tensor("w"), PAYLOAD)


def nested(writer: BitstreamWriter) -> None:
    """An aggregate as the last unit of another one."""
    with writer.aggregate():
        writer.data_unit(tensor("u"), PAYLOAD)
        with writer.aggregate(entry_points=True):
            writer.data_unit(tensor("v"), PAYLOAD)
            writer.data_unit(tensor("w"), PAYLOAD)


def containers() -> Iterator[PruningTopologyContainer]:
    """Masks in both orders, sparse, and both together; dictionaries."""
    for order in (False, True):
        yield PruningTopologyContainer(prune_flag=True, order_flag=order, prune_mask=MASK)
        yield PruningTopologyContainer(sparse_flag=True, order_flag=order, sparse_mask=BitMask(3, b"\xa0"))
    yield PruningTopologyContainer(prune_flag=True, sparse_flag=True, prune_mask=MASK, sparse_mask=BitMask(8, b"\x81"))
    yield PruningTopologyContainer(PruningRepresentationType.NNR_TPL_DICT, True, dictionary=DICTIONARY)
    both = PruningTopologyContainer(PruningRepresentationType.NNR_TPL_DICT, True, sparse_flag=True, sparse_mask=MASK)
    yield replace(both, dictionary=DICTIONARY)
    yield replace(both, dictionary=DICTIONARY, layout=DictionaryLayout.IDENTIFIERS_FIRST)


def references(writer: BitstreamWriter) -> None:
    """Data units and a pruning dictionary that refer to names by index."""
    writer.topology(Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"graph " * 30, b"quantization", b"private"))
    writer.pruning(PruningTopologyContainer(PruningRepresentationType.NNR_TPL_DICT, True, dictionary=INDICES))
    for name in reversed(NAMES):
        writer.data_unit(tensor(name), PAYLOAD)


def parts(writer: BitstreamWriter) -> None:
    """Units in several parts."""
    writer.topology(Topology(TopologyStorageFormat.NNR_TPL_ONNX, bytes(range(90)), bytes(range(40)), b"private"))
    for name in NAMES:
        writer.data_unit(tensor(name), PAYLOAD)
