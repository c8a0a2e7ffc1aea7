"""Zip archives with a bitstream for each member, and those that numpy reads as ``.npz``."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from nnc_adapters.containers import names
from nnc_adapters.containers.base import Items, opened
from nnc_adapters.shared.files import replacing
from nnc_core.bitstream.parts import begins_bitstream
from nnc_core.errors import ModelError, NncError
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Npz", "Zip"]

_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, RuntimeError, ValueError)
_UNIX = 3  # the system that archives are written on, whatever it is
_MOST_INFLATION = 64  # no bitstream has so much redundancy
_HEAD = 1024
_VECTOR = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '\|u1', 'fortran_order': (?:True|False), 'shape': \((?P<size>\d{1,19}),\), \} *\n",
    re.DOTALL,
)


class Zip:
    """Members are stored: what NNR has coded cannot be deflated. Deflated ones are read all the same."""

    name: str = "zip"
    suffixes: tuple[str, ...] = (".zip",)
    packages: tuple[str, ...] = ()
    member_suffix: str = ".nnr"

    def sniff(self, path: Path) -> bool:
        """Whether there are only members with the right suffix, of which the first is an NNR."""
        try:
            if not path.is_file():
                return False
            with _reported(path), opened(path) as stream, zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
                with archive.open(members[0]) as member:
                    head = self.unwrapped(member.read(_HEAD), whole=False)
                return begins_bitstream(head) and all(m.filename.endswith(self.member_suffix) for m in members)
        except (NncError, OSError):
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The members with the right suffix; `ModelError` for a damaged or encrypted archive, and for bombs."""
        stream = opened(path)
        try:
            with _reported(path):
                archive = zipfile.ZipFile(stream)
        except BaseException:
            stream.close()
            raise
        return Items(path, self._found(path, archive, limits or Limits()), lambda: _close(archive, stream), limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the archive; equal items make equal bytes."""
        with replacing(path, force=force) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for key in items:
                member = zipfile.ZipInfo(names.for_archive(key) + self.member_suffix)
                member.create_system = _UNIX
                member.external_attr = 0o644 << 16
                archive.writestr(member, self.wrapped(items[key]))

    def wrapped(self, data: Buffer) -> bytes:
        """What a member contains for the bitstream ``data``."""
        return bytes(data)

    def unwrapped(self, data: bytes, *, whole: bool = True) -> Buffer:
        """The bitstream in a member; ValueError where there is none. ``whole`` is unset for the first bytes of it."""
        return data

    def _found(self, path: Path, archive: zipfile.ZipFile, limits: Limits) -> Iterator[tuple[str, partial[Buffer]]]:
        members = [member for member in archive.infolist() if member.filename.endswith(self.member_suffix)]
        limits.check("decoded_bytes", sum(member.file_size for member in members), str(path))
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise ModelError("the archive is damaged: its members are larger than itself", file=str(path))
        for member in members:
            _check(path, member)
            with _reported(path):
                key = names.unquoted(member.filename.removesuffix(self.member_suffix))
            yield key, partial(self._read, path, archive, member)

    def _read(self, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Buffer:
        with _reported(path, member.filename):
            return self.unwrapped(archive.read(member))


class Npz(Zip):
    """Members are vectors of uint8, as ``numpy.load`` reads them."""

    name: str = "npz"
    suffixes: tuple[str, ...] = (".npz",)
    member_suffix: str = ".npy"

    def wrapped(self, data: Buffer) -> bytes:
        """An ``.npy`` file of version 1.0."""
        stream = io.BytesIO()
        npy.write_array(stream, np.frombuffer(data, np.uint8), (1, 0))
        return stream.getvalue()

    def unwrapped(self, data: bytes, *, whole: bool = True) -> Buffer:
        """The bytes of the vector."""
        header = _VECTOR.match(data)
        if not header:
            raise ValueError("a member is not an .npy file with a vector of bytes")
        vector = memoryview(data)[header.end() :]
        if whole and int(header["size"]) != len(vector):
            raise ValueError(f"a vector of {int(header['size'])} bytes, of which {len(vector)} are there")
        return vector


def _check(path: Path, member: zipfile.ZipInfo) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"compression method {member.compress_type}", file=str(path), tensor=member.filename)
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise ModelError(
            "the archive is damaged: a stored member has two sizes", file=str(path), tensor=member.filename
        )
    if member.file_size > _MOST_INFLATION * (member.compress_size + 1):
        message = f"{member.compress_size} bytes that claim to inflate to {member.file_size}"
        raise ModelError(message, file=str(path), tensor=member.filename)


def _close(archive: zipfile.ZipFile, stream: BinaryIO) -> None:
    archive.close()
    stream.close()


@contextmanager
def _reported(path: Path, member: str | None = None) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ModelError(f"the archive is damaged: {error}", file=str(path), tensor=member) from error
