"""What the units before left for the next update of a tensor (ISO/IEC 15938-17, nodes of the parameter update tree)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import MissingLinkError, ReplayError, WrongBaseError
from nnc_core.records import dataclass
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import ParentNodeIdType

Histories = Mapping[str, "History"]
"""The history of each tensor of a model by name, as one sender's units left it."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What the last unit of a tensor left; the next unit of the same sender builds on it.

    ``depth`` is the ``put_node_depth`` of that unit: 0 for the base model, 1 for the first update. ``base`` (int32,
    rows x width) holds its levels, with dependent quantization undone, which temporal contexts look at; ``marks``
    (uint8, likewise) is 1 where any update so far had a level other than zero. Both are None after the base model.
    ``sha256`` and ``sha512`` are digests of its payload.
    """

    device_id: int | None = None
    parameter_id: int | None = None
    depth: int = 0
    base: NDArray[np.int32] | None = None
    marks: NDArray[np.uint8] | None = None
    sha256: bytes = b""
    sha512: bytes = b""

    def after(self, h: CompressedDataUnitHeader, levels: NDArray[np.int32], payload: Buffer) -> History:
        """The history after a unit with header ``h`` and this payload; ``levels`` are those of the tensor in it."""
        from hashlib import sha256, sha512  # which takes long to import

        updates = h.parent_node_id_present_flag or bool(h.put_node_depth)
        depth = self.depth + h.parent_node_id_present_flag if h.put_node_depth is None else h.put_node_depth
        marks = (levels != 0).astype(np.uint8)
        return History(
            device_id=self.device_id if h.device_id is None else h.device_id,
            parameter_id=self.parameter_id if h.parameter_id is None else h.parameter_id,
            depth=depth,
            base=levels if updates else None,
            marks=(marks if self.marks is None else marks | self.marks) if updates else None,
            sha256=sha256(payload).digest(),
            sha512=sha512(payload).digest(),
        )


def check_parent(h: CompressedDataUnitHeader, name: str, history: History) -> None:
    """Check that a unit with header ``h`` is the one that comes next after ``history`` of the tensor ``name``.

    Raises `MissingLinkError` where a unit before is missing, `ReplayError` where this one came before, and
    `WrongBaseError` where it is another sender's or parameter's, or its parent has another payload.
    """
    if not h.parent_node_id_present_flag:
        return
    if h.put_node_depth is not None:
        _check_depth(name, h.put_node_depth - 1, history.depth)
    if h.parent_node_id_type == ParentNodeIdType.ICNN_NDU_PL_SHA256:
        _check_digest(name, h.parent_node_payload_sha256 or 0, history.sha256)
    elif h.parent_node_id_type == ParentNodeIdType.ICNN_NDU_PL_SHA512:
        _check_digest(name, h.parent_node_payload_sha512 or 0, history.sha512)
    if history.depth:
        _check_same(name, "device_id", h.device_id, history.device_id)
        _check_same(name, "parameter_id", h.parameter_id, history.parameter_id)


def _check_digest(name: str, needed: int, digest: bytes) -> None:
    if not digest:
        raise MissingLinkError("the unit that the update builds on is missing", tensor=name, need=f"{needed:x}")
    if int.from_bytes(digest, "big") != needed:
        message = "the update builds on a unit with another payload than the last one"
        raise WrongBaseError(message, tensor=name, have=digest.hex(), need=f"{needed:x}")


def _check_same(name: str, element: str, found: int | None, known: int | None) -> None:
    if found is not None and known is not None and found != known:
        message = f"{element} is {found}, that of the update before is {known}"
        raise WrongBaseError(message, tensor=name, have=known, need=found)


def _check_depth(name: str, need: int, have: int) -> None:
    if need > have:
        message = f"the update builds on update {need} of the tensor, at hand is update {have}"
        raise MissingLinkError(message, tensor=name, have=have, need=need)
    if need < have:
        raise ReplayError(
            f"update {need + 1} of the tensor comes after update {have}", tensor=name, have=have, need=need
        )
