"""The codec ``nnc`` of numcodecs, for zarr v2 and whoever else looks codecs up there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from numcodecs.compat import (  # type: ignore[import-untyped]
    ensure_contiguous_ndarray,
    ensure_ndarray,
    ndarray_copy,
)

from nnc_adapters.containers.arrays import ArrayCoder
from nnc_core.errors import ModelError

__all__ = ["Nnc"]


class Nnc(Codec):  # type: ignore[misc]
    """Lossy for floats, exact for integers; parameters as those of `ArrayCoder`."""

    codec_id = "nnc"

    def __init__(self, qp: int = -38, qp_density: int = 2, dq_flag: bool = True) -> None:
        self.qp = qp
        self.qp_density = qp_density
        self.dq_flag = dq_flag
        self._coder = ArrayCoder(qp, qp_density, dq_flag)

    def encode(self, buf: Any) -> bytes:
        """Code an array, or bytes as integers; TypeError or `ModelError` for what NNR cannot express."""
        return self._coder.encode(ensure_ndarray(buf))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The array, copied into ``out`` if that is given; `BitstreamError` or `ModelError` for damaged data."""
        array = self._coder.decode(ensure_contiguous_ndarray(buf).view(np.uint8).data)
        if out is None:
            return array
        if array.nbytes != ensure_ndarray(out).nbytes:
            raise ModelError(f"values of {array.nbytes} bytes, expected {ensure_ndarray(out).nbytes}")
        return ndarray_copy(array, out)

    def get_config(self) -> dict[str, Any]:
        """The configuration that array metadata keep."""
        parameters = {"qp": self.qp, "qp_density": self.qp_density, "dq_flag": self.dq_flag}
        return {"id": self.codec_id, **parameters}
