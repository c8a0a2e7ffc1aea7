"""What an update says about itself, in a topology unit that other decoders pass over (NNR_TPL_UNREC)."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import field
from typing import Any, Final, Literal

from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.records import dataclass

__all__ = ["BASE_MODEL_ID", "BEGINNING", "CHECK_BYTES", "Kind", "Manifest"]

Kind = Literal["lossy", "exact"]
CHECK_BYTES: Final = 8
BASE_MODEL_ID: Final = "sha256:"
"""What ``base_model_id`` begins with; the digest of the base follows."""
_VERSION: Final = 1
_KEY: Final = "nnc_update"
BEGINNING: Final = b'{"nnc_update"'
"""What the bytes of every manifest begin with."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where an update belongs.

    ``base`` and ``result`` are digests of the models before and after it, ``chain`` that of the model with which its
    chain began; a ``restart`` begins one. ``sequence`` counts the updates of a chain from 1. ``checks`` has the first
    `CHECK_BYTES` bytes of the digest of each tensor that changes, by name; ``literals`` the elements whose difference
    the coder cannot hold, as (place in coding order, bits). ``folded`` is the last of several updates that this one
    stands for, 0 where it stands for itself. ``predicts`` says that residuals may come, for which the receiver keeps
    the update.
    """

    kind: Kind
    sequence: int
    base: str
    result: str
    chain: str
    device_id: int = 0
    checks: dict[str, bytes] = field(default_factory=dict)
    literals: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    folded: int = 0
    predicts: bool = False

    @property
    def restart(self) -> bool:
        """Whether the update needs no state but the model that it applies to."""
        return self.sequence == 1

    def to_bytes(self) -> bytes:
        """The data of the topology unit: JSON, zero-terminated; ``base`` stands in the model parameter set."""
        data: dict[str, Any] = {_KEY: _VERSION, "kind": self.kind, "sequence": self.sequence}
        if self.device_id:
            data["device_id"] = self.device_id
        data["result"] = _packed(self.result)
        if self.chain != self.base:
            data["chain"] = _packed(self.chain)
        data["checks"] = b64encode(b"".join(self.checks.values())).decode()
        if self.folded:
            data["folded"] = self.folded
        if self.predicts:
            data["predicts"] = True
        if self.literals:
            data["literals"] = self.literals
        return json.dumps(data, separators=(",", ":")).encode() + b"\0"

    @classmethod
    def from_bytes(cls, data: bytes, base: str, tensors: Sequence[str]) -> Manifest:
        """Read `to_bytes` of an update for ``base`` that changes ``tensors``, in the order of their units.

        `ModelError` for anything else, `UnsupportedError` for a version or kind from later.
        """
        try:
            found = json.loads(data.rstrip(b"\0"))
            version, kind = found[_KEY], found["kind"]
            if version != _VERSION or kind not in ("lossy", "exact"):
                raise UnsupportedError("nnc_update", f"an update of version {version!r} and kind {kind!r}")
            checks = b64decode(found["checks"], validate=True)
            if len(checks) != CHECK_BYTES * len(tensors):
                raise ValueError(f"checks of {len(checks)} bytes for {len(tensors)} tensors")
            return cls(
                kind=kind,
                sequence=_number(found["sequence"]),
                base=base,
                result=_unpacked(found["result"]),
                chain=_unpacked(found["chain"]) if "chain" in found else base,
                device_id=_number(found.get("device_id", 0)),
                checks={name: checks[j * CHECK_BYTES :][:CHECK_BYTES] for j, name in enumerate(tensors)},
                literals={
                    _text(name): tuple((_number(place), _number(bits)) for place, bits in pairs)
                    for name, pairs in found.get("literals", {}).items()
                },
                folded=_number(found.get("folded", 0)),
                predicts=found.get("predicts", False) is True,
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"carries no readable manifest of an update: {error!r}") from None


def _packed(digest: str) -> str:
    return b64encode(bytes.fromhex(digest)).decode()


def _unpacked(digest: object) -> str:
    return b64decode(_text(digest), validate=True).hex()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a number")
    return value
