"""The checksums of checkpoints: CRC-32C, masked as LevelDB does it."""

from __future__ import annotations

from collections.abc import Iterable

from nnc_core.errors import MissingDependencyError

__all__ = ["masked_crc32c"]

_MASK = 0xA282EAD8


def masked_crc32c(pieces: Iterable[bytes]) -> int:
    """The checksum of ``pieces`` as it is stored; `MissingDependencyError` without the package ``google-crc32c``."""
    try:
        from google_crc32c import extend
    except ModuleNotFoundError as error:
        raise MissingDependencyError("google-crc32c", "tensorflow", "a checkpoint of TensorFlow") from error
    crc = 0
    for piece in pieces:
        crc = extend(crc, piece)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF
