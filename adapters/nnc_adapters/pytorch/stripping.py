"""TorchScript without what is there for people only: where in the source code an operation comes from."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import replace
from typing import BinaryIO, cast

from nnc_adapters.pytorch.layout import File, Model, scan
from nnc_adapters.pytorch.views import Data
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.stored import StoredBytes

__all__ = ["stripped"]

_DEBUG = ".debug_pkl"
_ALIGNMENT = 64
_LOCAL_HEADER = 30
_PADDING = b"FB"  # the extra field by which PyTorch aligns its members
_PIECE = 1 << 20


def stripped(model: Model, limits: Limits) -> tuple[Model, tuple[str, ...]]:
    """``model`` without the origins of operations, and what was left behind, in a sentence."""
    if model.kind != "torchscript":
        return model, ()
    (file,) = model.files
    try:
        data, dropped = _without_debug(file.data)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"the archive is damaged: {error}") from error
    if not dropped:
        return model, ()
    remark = f"{dropped} bytes are left behind that say where in the source code operations come from"
    return replace(model, files=[File(file.name, data, scan(data, limits))]), (remark,)


def _without_debug(data: Data) -> tuple[Data, int]:
    """The archive without these members, and how many bytes they were."""
    opened = io.BytesIO(data.view[:]) if data.path is None else data.path
    with zipfile.ZipFile(opened) as source, tempfile.TemporaryFile() as target:
        dropped = sum(info.compress_size for info in source.infolist() if info.filename.endswith(_DEBUG))
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for info in source.infolist():
                if not info.filename.endswith(_DEBUG):
                    _copy(source, info, archive, target.tell())
        target.flush()
        return Data(StoredBytes(cast(BinaryIO, target))), dropped


def _copy(source: zipfile.ZipFile, info: zipfile.ZipInfo, archive: zipfile.ZipFile, at: int) -> None:
    copy = zipfile.ZipInfo(info.filename, info.date_time)
    copy.compress_type, copy.file_size = info.compress_type, info.file_size
    start = at + _LOCAL_HEADER + len(info.filename.encode()) + 4
    padding = -start % _ALIGNMENT
    copy.extra = _PADDING + padding.to_bytes(2, "little") + b"Z" * padding
    with source.open(info) as member, archive.open(copy, "w") as target:
        for piece in iter(lambda: member.read(_PIECE), b""):
            target.write(piece)
