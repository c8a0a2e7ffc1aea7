"""Made the frozen bitstreams in ``fixtures``, which later versions must decode to the same arrays.

``python conformance/make_fixtures.py`` adds the cases below that are not there yet. Those that are there stay as they
are: what an encoder of today would write instead does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, Rule, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

FIXTURES = Path(__file__).parent / "fixtures"

Model = dict[str, NDArray[Any]]


def rng() -> np.random.Generator:
    """Make numbers; which ones is of no importance."""
    return np.random.default_rng(17)


def weights(*shape: int) -> NDArray[np.float32]:
    """Weights of a layer."""
    return rng().laplace(0, 0.05, shape).astype(np.float32)


def types() -> bytes:
    """Every type that an array can have."""
    floats: list[Any] = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]
    integers = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
    model: Model = {np.dtype(dtype).name: weights(9, 8).astype(dtype) for dtype in floats}
    model |= {np.dtype(dtype).name: rng().integers(0, 120, (5, 4)).astype(dtype) for dtype in integers}
    model["largest"] = np.array([2**31 - 1, -(2**31) + 1, 0, 1 << 20])
    model["scalar"] = np.array(-3)
    return nnc_core.encode(model)


def raw() -> bytes:
    """Values that cannot be quantized."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x3F800000], np.uint32)
    return nnc_core.encode({"special": bits.view(np.float32), "huge": np.full((2, 3), 3e38)})


def base_tools() -> bytes:
    """The tool set of 2022."""
    p = CodingParameters(qp=-24, general_profile_idc=0, rules=(Rule.parse("uniform=dq=0"),))
    return nnc_core.encode({"dependent": weights(20, 3, 3, 3), "uniform": weights(30, 11)}, parameters=p)


def scans() -> bytes:
    """Scans in blocks, with entry points, for both quantizers."""
    rules = [f"{quantizer}{order}=scan={order}" for quantizer in "ud" for order in range(5)]
    p = CodingParameters(qp=-20, rules=tuple(map(Rule.parse, ["^u=dq=0", *rules])))
    return nnc_core.encode({rule.partition("=")[0]: weights(70, 9) for rule in rules}, parameters=p)


def skipped_rows() -> bytes:
    """Rows that are left out, in every scan; and a tensor of zeros."""
    pruned = weights(40, 3, 2, 2)
    pruned[rng().random(40) < 0.6] = 0
    p = CodingParameters(qp=-24, rules=tuple(Rule.parse(f"p{order}=scan={order}") for order in range(5)))
    model: Model = {f"p{order}": pruned for order in range(5)}
    return nnc_core.encode({**model, "zeros": np.zeros((50, 50), np.float32)}, parameters=p)


def quantization() -> bytes:
    """The ends of what the parameters of the quantizer and of the binarization can be."""
    rules = ["coarse=qp=-250", "fine=qp=-800", "u0=unary=0", "u255=unary=255", "plain=param_opt=0"]
    p = CodingParameters(qp=-300, nonweight_qp=-300, qp_density=5, rules=tuple(map(Rule.parse, rules)))
    model = {name: weights(12, 9) for name in ("coarse", "fine", "u0", "u255", "plain")}
    return nnc_core.encode({**model, "vector": weights(30)}, parameters=p)


def description() -> bytes:
    """A topology, deflated, and names beyond ASCII."""
    topology = Topology(TopologyStorageFormat.NNR_TPL_ONNX, 40 * b"a description of the graph; ")
    return nnc_core.encode({"слой.вес": weights(4, 4), "": weights(3), "a/b:0": weights(5)}, topology=topology)


def plain_description() -> bytes:
    """A topology too short to be deflated, and no tensors."""
    return nnc_core.encode({}, topology=Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"\x00\xff"))


CASES: tuple[Callable[[], bytes], ...] = (
    types,
    raw,
    base_tools,
    scans,
    skipped_rows,
    quantization,
    description,
    plain_description,
)


def main() -> None:
    """Add what is missing."""
    FIXTURES.mkdir(exist_ok=True)
    for case in CASES:
        path = FIXTURES / f"{case.__name__}.nnr"
        if not path.exists():
            data = case()
            # Names of arrays become names of files: numbers are safe in all of them.
            arrays = {str(number): array for number, array in enumerate(nnc_core.decode(data).values())}
            path.write_bytes(data)
            np.savez_compressed(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
