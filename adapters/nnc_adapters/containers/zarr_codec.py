"""The codec ``nnc`` of zarr v3: a chunk of an array becomes a bitstream."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON, parse_named_configuration

from nnc_adapters.containers.arrays import ArrayCoder, check_dtype
from nnc_core.errors import ModelError

__all__ = ["NncCodec"]

_NAME = "nnc"


@dataclass(frozen=True)
class NncCodec(ArrayBytesCodec):
    """Lossy for floats, exact for integers; parameters as those of `ArrayCoder`, which ``coder`` holds."""

    is_fixed_size = False
    coder: ArrayCoder = field(default_factory=ArrayCoder)

    def __init__(self, *, qp: int = -38, qp_density: int = 2, dq_flag: bool = True) -> None:
        object.__setattr__(self, "coder", ArrayCoder(qp, qp_density, dq_flag))

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> NncCodec:
        """The codec that array metadata describe; ValueError or TypeError for values out of range."""
        _, configuration = parse_named_configuration(data, _NAME, require_configuration=False)
        parameters: dict[str, Any] = configuration or {}
        return cls(**parameters)

    def to_dict(self) -> dict[str, JSON]:
        """What array metadata say of the codec."""
        return {"name": _NAME, "configuration": asdict(self.coder)}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """TypeError for an array that is neither floating-point nor integer."""
        check_dtype(dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known in advance: NotImplementedError."""
        raise NotImplementedError

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        coded: Buffer = chunk_spec.prototype.buffer.from_bytes(self.coder.encode(chunk_data.as_numpy_array()))
        return coded

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        array = self.coder.decode(chunk_data.to_bytes())
        if array.shape != (chunk_spec.shape or (1,)):
            raise ModelError(f"a chunk of shape {array.shape}, expected {chunk_spec.shape}")
        native = chunk_spec.dtype.to_native_dtype()
        if array.dtype.newbyteorder("=") != native.newbyteorder("="):
            raise ModelError(f"a chunk of type {array.dtype}, expected {native}")
        array = array.reshape(chunk_spec.shape).astype(native)
        chunk: NDBuffer = chunk_spec.prototype.nd_buffer.from_numpy_array(array)
        return chunk

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)
