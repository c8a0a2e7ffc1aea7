"""Valid bitstreams of every kind, from which hostile ones are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from conformance.support import every_unit
from conformance.support.shared import SHARED
from nnc_core import History
from nnc_core.bitstream import Bitstream, UnitRecord
from nnc_core.entropy.native import Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import NncError
from nnc_core.syntax import CompressedDataUnitHeader, ModelParameterSet, SyntaxContext, Writer
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import TensorDimensionMapping, nnr_compressed_data_unit_header
from nnc_core.syntax.deflate import deflate
from nnc_core.syntax.model_parameter_set import nnr_model_parameter_set_payload
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.syntax.units import StartUnitHeader, nnr_start_unit_header, unit
from nnc_core.tables.blocks import WEIGHTS, members
from nnc_core.tables.code_points import (
    CompressedParameterTypes,
    DecompressedDataFormat,
    NnrUnitType,
    ParentNodeIdType,
    PayloadType,
    TopologyStorageFormat,
)

HISTORY = History(
    device_id=1,
    parameter_id=2,
    depth=2,
    base=(np.arange(24, dtype=np.int32) % 5 - 2).reshape(6, 4),
    marks=(np.arange(24, dtype=np.uint8) % 2).reshape(6, 4),
)
"""What the updates before left of the tensor ``w``."""

_LONGEST_SEED = 2000


@dataclass(frozen=True)
class Seed:
    """A valid bitstream; its name is for reports."""

    name: str
    data: bytes

    @cached_property
    def units(self) -> tuple[UnitRecord, ...]:
        """Its units (an aggregate is one), none if it is not valid (any more)."""
        try:
            return tuple(unit for unit in Bitstream(self.data).units if unit.within is None)
        except NncError:
            return ()

    @cached_property
    def parts(self) -> list[bytes]:
        """The bytes of each unit."""
        return [self.data[u.offset : u.offset + u.size] for u in self.units]


def seeds() -> list[Seed]:
    """Everything to start from: small models, units made by hand, and short bitstreams of the corpus if it is there."""
    corpus = sorted(path for path in SHARED.glob("corpus/*/*.nnr") if path.stat().st_size <= _LONGEST_SEED)
    found = [Seed(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in corpus]
    return [*encoded(), *handmade(), *found]


def encoded() -> Iterator[Seed]:
    """Small models from the encoder, over all profiles, quantizers and scans."""
    rng = np.random.default_rng(1)
    for profile, dq, scan in product((0, 1), (False, True), range(5)):
        parameters = nnc_core.CodingParameters(
            general_profile_idc=profile, dq_flag=dq, scan_order=scan, cabac_unary_length_minus1=(0, 3, 10)[scan % 3]
        )
        matrix = rng.laplace(size=(17, 3, 3)).astype(np.float32)
        matrix[rng.random(17) < 0.4] = 0
        tensors = {
            "conv.w": matrix,
            "b": rng.normal(size=5).astype((np.float32, np.float16, np.float64)[scan % 3]),
            "steps": rng.integers(-9, 99, (9, 2)).astype((np.int32, np.int8, np.int64)[scan % 3]),
            "raw": np.array([[1, np.inf], [np.nan, -2]], np.float32),
        }
        text = b"graph g" if scan % 2 else b"graph " * 30
        topology = nnc_core.Topology(TopologyStorageFormat.NNR_TPL_NNEF, text)
        data = nnc_core.encode(tensors, parameters=parameters, topology=topology, threads=1)
        yield Seed(f"encoded p{profile} dq{dq:d} s{scan}", data)


def handmade() -> Iterator[Seed]:
    """What the encoder does not write: codebooks, nodes, references by index, blocks, factors, fragments, odd units."""
    header = CompressedDataUnitHeader
    for size, zero in ((1, 0), (2, 0), (5, 2), (40, 39)):
        book = IntegerCodebook.from_values([3 * value - 7 for value in range(size)], zero)
        fields = {"codebook_present_flag": True, "integer_codebook": book, "tensor_dimensions": (6, 4)}
        yield Seed(f"codebook of {size}", bitstream_of([(header(topology_elem_id="w", **fields), 0)]))
    parents: list[dict[str, object]] = [
        {"parent_node_id_type": ParentNodeIdType.ICNN_NDU_ID, "parent_device_id": 3},
        {"parent_node_id_type": ParentNodeIdType.ICNN_NDU_PL_SHA256, "parent_node_payload_sha256": 1 << 250},
        {"parent_node_id_type": ParentNodeIdType.ICNN_NDU_PL_SHA512, "parent_node_payload_sha512": 1 << 500},
    ]
    node = {"node_id_present_flag": True, "device_id": 1, "parameter_id": 2, "put_node_depth": 3}
    for number, parent in enumerate(parents):
        update = header(
            topology_elem_id="w", tensor_dimensions=(6, 4), parent_node_id_present_flag=True, **node, **parent
        )
        mps = ModelParameterSet(mps_parent_signalling_enabled_flag=True)
        yield Seed(f"parent {number}", bitstream_of([(update, 0)], mps=mps))
    update = header(topology_elem_id="w", tensor_dimensions=(6, 4), parent_node_id_present_flag=True, **node)
    update.parent_node_id_type, update.parent_device_id = ParentNodeIdType.ICNN_NDU_ID, 1
    update.temporal_context_modeling_flag = True
    mps = ModelParameterSet(mps_parent_signalling_enabled_flag=True)
    yield Seed("update", bitstream_of([(update, 0)], mps=mps))
    shifted = header(topology_elem_id="w", tensor_dimensions=(2, 9, 3), first_tensor_dimension_shift=1, scan_order=1)
    shifted.nnr_decompressed_data_format_present_flag = True
    shifted.nnr_decompressed_data_format = DecompressedDataFormat.FLOAT64
    yield Seed("shifted", bitstream_of([(shifted, 0)]))
    yield from _references()
    yield from _compounds()
    whole = bitstream_of([(header(topology_elem_id="w", tensor_dimensions=(6, 4)), 0)])
    for kind in (NnrUnitType.NNR_QNT, 63):
        yield Seed(f"unit of type {kind}", whole + unit(kind, b"", b"\x55" * 5))
    pieces = [(header(topology_elem_id="w", tensor_dimensions=(6, 4)), counter) for counter in (3, 2, 1)]
    yield Seed("fragments", bitstream_of(pieces))
    yield from (Seed(name, data) for name, data in every_unit.bitstreams())


def _references() -> Iterator[Seed]:
    mps = ModelParameterSet(mps_topology_indexed_reference_flag=True)
    header = CompressedDataUnitHeader(topology_elem_id_index=2, tensor_dimensions=(6, 4))
    several = CompressedDataUnitHeader(
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(topology_elem_id_index_list=(0, 1)),
        tensor_dimensions=(6, 4),
        topology_tensor_dimension_mapping=TensorDimensionMapping(0, (2,), (((0, 1),), ())),
    )
    names = b"\x81\x80a\0bb\0\xc3\xa9\0"
    for compression, payload in enumerate((names, deflate(names))):
        topology = unit(NnrUnitType.NNR_TPL, bytes((TopologyStorageFormat.NNR_TPL_REFLIST, compression)), payload)
        yield Seed(f"references {compression}", bitstream_of([(header, 0), (several, 0)], mps=mps, between=topology))


def _compounds() -> Iterator[Seed]:
    factors = CompressedParameterTypes.NNR_CPT_DC
    dc = {"compressed_parameter_types": factors, "decomposition_rank": 2, "g_number_of_rows": 6}
    g = CompressedDataUnitHeader(topology_elem_id="g", tensor_dimensions=(6, 4, 3), **dc)
    h = CompressedDataUnitHeader(topology_elem_id="h", tensor_dimensions=(6, 4, 3), **dc)
    yield Seed("factors", bitstream_of([(g, 0), (h, 0)]))
    types = CompressedParameterTypes
    yield Seed("block", bitstream_of([(block_of(types.NNR_CPT_LS | types.NNR_CPT_BI), 0)]))
    yield Seed("block of all", bitstream_of([(block_of(types(15), scan_order=1, **dc), 0)]))
    books = [IntegerCodebook.from_values([3 * value - 7 for value in range(size)], 1) for size in (2, 5)]
    fields = {"codebook_present_flag": True, "integer_codebook": books[0], "integer_codebook_h": books[1]}
    yield Seed("block with codebooks", bitstream_of([(block_of(types(3), **dc, **fields), 0)]))


def block_of(types: CompressedParameterTypes, **fields: Any) -> CompressedDataUnitHeader:
    """The header of a block with a weight of 6 x 4 x 3."""
    names = tuple(f"m{place}" for place in range(len(members(types))))
    return CompressedDataUnitHeader(
        **{**fields, "compressed_parameter_types": types},
        nnr_compressed_data_unit_payload_type=PayloadType.NNR_PT_BLOCK,
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(names),
        tensor_dimensions=(6, 4, 3),
    )


def bitstream_of(
    headers: Sequence[tuple[CompressedDataUnitHeader, int]],
    *,
    mps: ModelParameterSet | None = None,
    between: bytes = b"",
    profile: int = 1,
) -> bytes:
    """A bitstream of data units with small payloads that fit their headers; ``between`` follows the parameter set."""
    mps = mps or ModelParameterSet()
    mps.mps_quantization_method_flags, mps.mps_qp_density, mps.mps_quantization_parameter = 3, 2, 0
    ctx = SyntaxContext(
        profile,
        mps_parent_signalling_enabled_flag=mps.mps_parent_signalling_enabled_flag,
        mps_topology_indexed_reference_flag=mps.mps_topology_indexed_reference_flag,
    )
    data = unit(NnrUnitType.NNR_STR, written(nnr_start_unit_header, StartUnitHeader(profile), SyntaxContext()))
    data += unit(NnrUnitType.NNR_MPS, written(nnr_model_parameter_set_payload, mps, ctx)) + between
    for header, counter in headers:
        payload = _payload(header)
        if counter:
            third = -(-len(payload) // 3)
            payload = payload[(3 - counter) * third : (4 - counter) * third]
        head = written(nnr_compressed_data_unit_header, header, ctx)
        data += unit(NnrUnitType.NNR_NDU, head, payload, counter)
    return data


def _payload(h: CompressedDataUnitHeader) -> bytes:
    """Levels of the header's shape, zeros where there is a codebook, with their entry points put into the header."""
    encoder = Encoder()
    block = h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    vectors = [m for m in members(h.compressed_parameter_types) if m not in WEIGHTS] if block else []
    for _ in vectors:
        _code(encoder, np.arange(h.tensor_dimensions[0], dtype=np.int32).reshape(-1, 1), h, None)
    for shape, book in zip(_matrices(h), (h.integer_codebook, h.integer_codebook_h), strict=False):
        levels = np.zeros(shape, np.int32)
        if book is None:
            levels[::2] = np.arange(levels.shape[1])
        _code(encoder, levels, h, book)
    payload = encoder.finish()
    h.entry_points = tuple(point for points in encoder.entry_points for point in points)
    return payload


def _matrices(h: CompressedDataUnitHeader) -> list[tuple[int, int]]:
    """The shape of the weight, or of its factors, or of the one in the unit."""
    factors = [(6, 2), (2, 12)]
    if h.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC:
        return {"g": factors[:1], "h": factors[1:]}.get(h.topology_elem_id or "", factors)
    rows = h.tensor_dimensions[h.first_tensor_dimension_shift]
    return [(rows, int(np.prod(h.tensor_dimensions)) // rows)]


def _code(
    encoder: Encoder, levels: NDArray[np.int32], h: CompressedDataUnitHeader, book: IntegerCodebook | None
) -> None:
    history = HISTORY if h.temporal_context_modeling_flag else History()
    parameters = TensorParameters(
        cabac_unary_length_minus1=h.cabac_unary_length_minus1,
        scan_order=h.scan_order,
        parent_node_id_present_flag=h.parent_node_id_present_flag,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
        base=history.base,
        history=history.marks,
    )
    encoder.iae(-8, 8)
    encoder.tensor(levels, parameters, TensorChoices(hist_dep_sig_prob_enabled_flag=history.marks is not None))


def written(table: Callable[..., None], record: object, *context: SyntaxContext) -> bytes:
    """The bytes of one syntax table."""
    writer = Writer()
    table(writer, record, *context)
    return writer.data()
