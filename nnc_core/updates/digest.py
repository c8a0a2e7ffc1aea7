"""Whether two models are the same, whatever files they lie in: digests of tensors and of models."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fingerprint", "fingerprint", "fingerprints", "model_digest"]

_PIECE = 1 << 22


class Fingerprint(NamedTuple):
    """A tensor's type, shape, and SHA-256 of its little-endian elements in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    digest: bytes


def fingerprint(array: NDArray[Any]) -> Fingerprint:
    """The fingerprint of one tensor; takes no copy of a contiguous array."""
    hasher = sha256()
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        little = piece if piece.dtype.byteorder != ">" else piece.astype(piece.dtype.newbyteorder("<"))
        hasher.update(little.view(np.uint8).data)
    return Fingerprint(array.dtype.newbyteorder("=").name, array.shape, hasher.digest())


def fingerprints(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Fingerprint]:
    """The fingerprints of all tensors; each is fetched once."""
    return {name: fingerprint(tensors[name]) for name in tensors}


def model_digest(prints: Mapping[str, Fingerprint]) -> str:
    """The digest of a model, 64 hexadecimal digits: SHA-256 over its tensors in the order of their names."""
    hasher = sha256()
    for name in sorted(prints):
        dtype, shape, digest = prints[name]
        for part in (name.encode("utf-8", "surrogatepass"), dtype.encode(), repr(tuple(map(int, shape))).encode()):
            hasher.update(len(part).to_bytes(8, "little") + part)
        hasher.update(digest)
    return hasher.hexdigest()
