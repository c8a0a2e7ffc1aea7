"""Arrays as bitstreams of their own, for formats that keep chunks of arrays and call a codec by its name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.shared.dtypes import converted
from nnc_core.errors import ModelError
from nnc_core.planner.parameters import CodingParameters
from nnc_core.records import dataclass
from nnc_core.syntax import Buffer

__all__ = ["ArrayCoder", "check_dtype"]

_KINDS = "fiu"
_NAME = re.compile(r"(?P<order>F?)(?P<dtype>[<>][fiu][248]|\|[iu]1)")


@dataclass(frozen=True, slots=True)
class ArrayCoder:
    """Codes floats with the step size of ``qp`` and ``qp_density`` (as float32 at best), integers exactly.

    The bitstream's tensor is called like its data type, since NNR has not all of them, with an F in front if the array
    has its first dimension fastest: numcodecs' users expect the same order in memory.
    """

    qp: int = -38
    qp_density: int = 2
    dq_flag: bool = True

    def __post_init__(self) -> None:
        self.parameters  # noqa: B018 - raises ValueError for what is out of range

    @property
    def parameters(self) -> CodingParameters:
        """What the encoder is told: the same for all arrays, whatever their dimensions."""
        return CodingParameters(qp=self.qp, nonweight_qp=self.qp, qp_density=self.qp_density, dq_flag=self.dq_flag)

    def encode(self, array: NDArray[Any]) -> bytes:
        """The bitstream; TypeError for a data type, `ModelError` for values and shapes that NNR cannot express."""
        check_dtype(array.dtype)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        columns_first = array.flags.f_contiguous and not array.flags.c_contiguous
        name = "F" * columns_first + array.dtype.str
        return nnc_core.encode({name: native}, parameters=self.parameters, threads=1)

    def decode(self, data: Buffer) -> NDArray[Any]:
        """The array, in the data type it had; `ModelError` if `encode` did not make the bitstream."""
        tensors = nnc_core.decode(data, threads=1)
        if len(tensors) != 1:
            raise ModelError(f"holds {len(tensors)} tensors, expected one")
        ((name, array),) = tensors.items()
        found = _NAME.fullmatch(name)
        if not found:
            raise ModelError("is not called like a data type", tensor=name)
        array = _cast(array, np.dtype(found["dtype"]))
        return np.asfortranarray(array) if found["order"] else array


def check_dtype(dtype: np.dtype[Any]) -> None:
    """TypeError for what is neither floating-point nor integer."""
    if dtype.kind not in _KINDS or dtype.itemsize > 8:
        raise TypeError(f"NNR codes floating-point and integer arrays, not {dtype}")


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Back to ``dtype``, which holds all that was coded from it."""
    if (array.dtype.kind == "f") != (dtype.kind == "f"):
        raise ModelError(f"has values of type {array.dtype}, expected {dtype}")
    if dtype.kind == "f":
        return converted(array, dtype)
    bounds = np.iinfo(dtype)
    if array.min() < bounds.min or array.max() > bounds.max:
        raise ModelError(f"has values that {dtype} cannot hold")
    return array.astype(dtype)
