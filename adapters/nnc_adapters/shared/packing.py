"""Several named byte strings in the data of one topology: a zip archive with stored members.

The topology unit is deflated as a whole, so nothing is compressed here. Equal parts make equal bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["pack", "unpack"]

_UNIX = 3  # the system that archives are written on, whatever it is
_BROKEN = (zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError)


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The archive of ``parts``, in the order of the mapping."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            member = zipfile.ZipInfo(name)
            member.create_system = _UNIX
            archive.writestr(member, data)
    return stream.getvalue()


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The parts in ``data``, in order.

    Raises `ModelError` where ``data`` are no archive of stored members with different names, `LimitError` where they
    exceed ``limits.topology_bytes``.
    """
    limits.check("topology_bytes", len(data), "the parts of the topology")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check(members, len(data))
            return {member.filename: archive.read(member) for member in members}
    except _BROKEN as error:
        raise ModelError(f"the parts of the topology are damaged: {error}") from error


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    names = {member.filename for member in members}
    if len(names) != len(members):
        raise ModelError("the parts of the topology have the same name twice")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise ModelError("a part of the topology is not stored as it is")
    if sum(member.file_size for member in members) > size:
        raise ModelError("the parts of the topology overlap")
