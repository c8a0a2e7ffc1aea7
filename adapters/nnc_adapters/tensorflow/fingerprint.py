"""The fingerprint of a SavedModel, which says what its files hash to: it stays true when these get other weights."""

from __future__ import annotations

from nnc_adapters.shared import protobuf

__all__ = ["FILE", "fingerprint64", "refreshed"]

FILE = "fingerprint.pb"

# fields of FingerprintDef
_SAVED_MODEL, _PROGRAM, _CHECKPOINT = 1, 2, 5

_MASK = (1 << 64) - 1
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_SEED = 81


def refreshed(data: bytes, index: bytes | None, graph_changed: bool) -> bytes:
    """A fingerprint that is true of this ``index`` of variables; what a changed graph hashes to is not known then.

    What cannot be read stays as it is.
    """
    view, kept = memoryview(data), bytearray()
    try:
        for field in protobuf.fields(view, 0, len(view)):
            if field.number == _CHECKPOINT and index is not None:
                kept += protobuf.encoded(field.number << 3) + protobuf.encoded(fingerprint64(index))
            elif not (graph_changed and field.number in (_SAVED_MODEL, _PROGRAM)):
                kept += view[field.start : field.end]
    except protobuf.WireError:
        return data
    return bytes(kept)


def fingerprint64(data: bytes) -> int:
    """FarmHash's fingerprint of 64 bits."""
    size = len(data)
    if size <= 16:
        return _up_to_16(data, size)
    if size <= 32:
        return _up_to_32(data, size)
    return _up_to_64(data, size) if size <= 64 else _longer(data, size)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotated(value: int, by: int) -> int:
    value &= _MASK
    return (value >> by | value << (64 - by)) & _MASK


def _mixed(value: int) -> int:
    value &= _MASK
    return value ^ value >> 47


def _pair(first: int, second: int, factor: int) -> int:
    a = _mixed((first ^ second) * factor)
    return _mixed(((second & _MASK) ^ a) * factor) * factor & _MASK


def _up_to_16(data: bytes, size: int) -> int:
    factor = _K2 + 2 * size
    if size >= 8:
        a, b = _word(data, 0) + _K2, _word(data, size - 8)
        return _pair(_rotated(b, 37) * factor + a, (_rotated(a, 25) + b) * factor, factor)
    if size >= 4:
        first, last = (int.from_bytes(data[at : at + 4], "little") for at in (0, size - 4))
        return _pair(size + (first << 3), last, factor)
    if size == 0:
        return _K2
    y, z = data[0] + (data[size >> 1] << 8), size + (data[-1] << 2)
    return _mixed(y * _K2 ^ z * _K0) * _K2 & _MASK


def _up_to_32(data: bytes, size: int) -> int:
    factor = _K2 + 2 * size
    a, b = _word(data, 0) * _K1, _word(data, 8)
    c, d = _word(data, size - 8) * factor, _word(data, size - 16) * _K2
    return _pair(_rotated(a + b, 43) + _rotated(c, 30) + d, a + _rotated(b + _K2, 18) + c, factor)


def _up_to_64(data: bytes, size: int) -> int:
    factor = _K2 + 2 * size
    a, b = _word(data, 0) * _K2, _word(data, 8)
    c, d = _word(data, size - 8) * factor, _word(data, size - 16) * _K2
    y = _rotated(a + b, 43) + _rotated(c, 30) + d
    z = _pair(y, a + _rotated(b + _K2, 18) + c, factor)
    e, f = _word(data, 16) * factor, _word(data, 24)
    g, h = (y + _word(data, size - 32)) * factor, (z + _word(data, size - 24)) * factor
    return _pair(_rotated(e + f, 43) + _rotated(g, 30) + h, e + _rotated(f + a, 18) + g, factor)


def _half(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    """Two words of state after 32 bytes."""
    w, x, y, z = (_word(data, at + 8 * n) for n in range(4))
    a += w
    b = _rotated(b + a + z, 21)
    c = a
    a += x + y
    return (a + z) & _MASK, (b + _rotated(a, 44) + c) & _MASK


def _longer(data: bytes, size: int) -> int:
    x, y = (_SEED * _K2 + _word(data, 0)) & _MASK, (_SEED * _K1 + 113) & _MASK
    z = _mixed(y * _K2 + 113) * _K2 & _MASK
    v, w = (0, 0), (0, 0)
    end = (size - 1) // 64 * 64
    for at in range(0, end, 64):
        x, y, z, v, w = _round(data, at, (x, y, z, v, w), _K1, 1)
    factor = _K1 + ((z & 0xFF) << 1)
    first = w[0] + (size - 1 & 63)
    v = ((v[0] + first) & _MASK, v[1])
    w = ((first + v[0]) & _MASK, w[1])
    x, y, z, v, w = _round(data, size - 64, (x, y, z, v, w), factor, 9)
    return _pair(
        _pair(v[0], w[0], factor) + _mixed(y) * _K0 + z,
        _pair(v[1], w[1], factor) + x,
        factor,
    )


_State = tuple[int, int, int, tuple[int, int], tuple[int, int]]


def _round(data: bytes, at: int, state: _State, factor: int, weight: int) -> _State:
    x, y, z, v, w = state
    x = _rotated(x + y + v[0] + _word(data, at + 8), 37) * factor & _MASK
    y = _rotated(y + v[1] + _word(data, at + 48), 42) * factor & _MASK
    x ^= w[1] * weight & _MASK
    y = (y + v[0] * weight + _word(data, at + 40)) & _MASK
    z = _rotated(z + w[0], 33) * factor & _MASK
    v = _half(data, at, v[1] * factor, x + w[0])
    w = _half(data, at + 32, z + w[1], y + _word(data, at + 16))
    return z, y, x, v, w
