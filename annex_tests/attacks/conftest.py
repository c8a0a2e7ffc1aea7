from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from nnc_core.errors import NncError


@pytest.fixture
def damaged() -> Callable[[bytes, random.Random], bytes]:
    """Bytes with a few of them changed, repeated or left out."""

    def damage(data: bytes, generator: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(generator.choice((1, 1, 2, 5))):
            hurt(changed, generator)
        return bytes(changed)

    return damage


def hurt(data: bytearray, generator: random.Random) -> None:
    at, kind = generator.randrange(len(data) or 1), generator.randrange(5)
    if kind == 0:
        data[at : at + 1] = bytes([generator.randrange(256)])
    elif kind == 1:
        data[at : at + 1] = bytes([generator.choice((0, 1, 0x7F, 0x80, 0xFF))])
    elif kind == 2:
        number = generator.choice((0, 1, len(data), 0x7FFFFFFF, 0xFFFFFFFF))
        data[at : at + 4] = struct.pack("<I", number)
    elif kind == 3:
        start = generator.randrange(len(data) or 1)
        data[at:at] = data[start : start + generator.randrange(16)]
    else:
        del data[at : at + generator.randrange(16)]


@pytest.fixture
def survives() -> Callable[..., None]:
    """Nothing but the errors of this suite comes out of a call."""

    def check(call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except NncError:
            return
        except Exception as error:
            raise AssertionError(f"{arguments!r}") from error

    return check
