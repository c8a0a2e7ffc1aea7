"""Keras archives: zip files with descriptions in JSON, and the weights in HDF5."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO, cast

from nnc_adapters.tensorflow import contiguous, hdf5
from nnc_adapters.tensorflow.content import Content, Nameless
from nnc_adapters.tensorflow.manifest import File, check_path
from nnc_adapters.tensorflow.model import Opened
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits

__all__ = ["SIGNATURE", "looks_like_keras", "member", "open_archive"]

SIGNATURE = b"PK"
_DESCRIPTION = "config.json"
_LOCAL_SIGNATURE = b"PK\3\4"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, OSError, RuntimeError, ValueError, struct.error)
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NUMBERS = {"compress_type": _METHODS, "create_system": range(1 << 8), "external_attr": range(1 << 32)}
_ATTRIBUTES = ("date_time", *_NUMBERS)
# what the bits of a date can hold
_DATE = (range(1980, 2108), *map(range, (16, 32, 32, 64, 63)))


def looks_like_keras(path: Path) -> bool:
    """Whether this is an archive with a description and weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _BROKEN:
        return False
    return _DESCRIPTION in names and any(name.endswith(hdf5.WEIGHTS) for name in names)


def open_archive(path: Path, limits: Limits) -> Opened:
    """Open an archive; `ModelError` where it is damaged, encrypted or names files outside itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(members, limits)
            files = _contents(archive, path, [member for member in members if not member.is_dir()])
    except _BROKEN as error:
        raise ModelError(f"the archive is damaged: {error}") from error
    weights = [name for name in files if name.endswith(hdf5.WEIGHTS)]
    files |= {name: contiguous.contiguous(files[name], limits) for name in weights}
    prefixes = {name: "" if len(weights) == 1 else name + "/" for name in weights}
    variables = [v for name, prefix in prefixes.items() for v in hdf5.variables(files[name], name, prefix)]
    attributes = {m.filename: {key: getattr(m, key) for key in _ATTRIBUTES} for m in members}
    folders = tuple(member.filename.rstrip("/") for member in members if member.is_dir())
    return Opened("keras", files, variables, folders, attributes)


def _check(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    names = [check_path(member.filename.removesuffix("/")) for member in members]
    if len(set(names)) != len(names):
        raise ModelError("the archive has two members of the same name")
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise UnsupportedError("an encrypted archive")
    if any(member.compress_type not in _METHODS for member in members):
        raise UnsupportedError("an archive that is neither stored nor deflated")
    limits.check("decoded_bytes", sum(member.file_size for member in members), "the archive")


def _contents(archive: zipfile.ZipFile, path: Path, members: list[zipfile.ZipInfo]) -> dict[str, Content]:
    """Stored members where they are; those that are compressed go to a file without a name."""
    expanded = Nameless()
    return {
        member.filename: _stored(path, member)
        if member.compress_type == zipfile.ZIP_STORED
        else _expanded(archive, member, cast(BinaryIO, expanded))
        for member in members
    }


def _stored(path: Path, member: zipfile.ZipInfo) -> Content:
    whole = Content(path, 0, path.stat().st_size)
    header = whole.raw(member.header_offset, _LOCAL_HEADER.size).tobytes()
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    start = member.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != _LOCAL_SIGNATURE or start + member.file_size > whole.size:
        raise ModelError(f"the archive is damaged: {member.filename} is not where it should be")
    content = Content(path, start, member.file_size)
    checksum = 0
    for piece in content.pieces(0, content.size):
        checksum = zlib.crc32(piece, checksum)
    if checksum != member.CRC:
        raise ModelError(f"the archive is damaged: {member.filename} does not have its checksum")
    return content


def _expanded(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: BinaryIO) -> Content:
    start = target.seek(0, 2)
    with archive.open(member) as source:
        shutil.copyfileobj(source, target)
    target.flush()
    if target.tell() - start != member.file_size:
        raise ModelError(f"the archive is damaged: {member.filename} does not have {member.file_size} bytes")
    return Content(target, start, member.file_size)


def member(file: File) -> zipfile.ZipInfo:
    """The member of an archive that ``file`` becomes; `ModelError` if its attributes are not those of a member."""
    info = zipfile.ZipInfo(file.path)
    date = file.attributes.get("date_time")
    if not (isinstance(date, list) and len(date) == len(_DATE) and all(map(_within, date, _DATE))):
        raise ModelError(f"the topology is damaged: {date!r} is the date of {file.path}")
    info.date_time = cast("tuple[int, int, int, int, int, int]", tuple(date))
    for key, values in _NUMBERS.items():
        if not _within(file.attributes.get(key), values):
            raise ModelError(f"the topology is damaged: {key} of {file.path} is {file.attributes.get(key)!r}")
        setattr(info, key, file.attributes[key])
    info.file_size = file.size  # a large one has another header
    return info


def _within(value: object, values: Container[int]) -> bool:
    return type(value) is int and value in values
