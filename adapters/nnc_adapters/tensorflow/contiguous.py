"""HDF5 files without chunks: what is compressed, or in pieces, is put in one piece before it is coded.

The same groups, attributes, links and values, in a file that h5py writes; the model is restored as this file.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from nnc_adapters.tensorflow.content import Content, Nameless
from nnc_adapters.tensorflow.hdf5 import opened, type_name
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["contiguous"]

_LARGEST_RATIO = 1100  # of deflate
_MOST_GROUPS = 64  # inside each other


def contiguous(content: Content, limits: Limits) -> Content:
    """``content``, or a file without chunks in its place, if numbers are in chunks.

    `ModelError` where it is damaged, `LimitError` where it would become too large.
    """
    with opened(content) as source:
        chunked = _Chunked()
        source.visititems(chunked.add)
        if not chunked.bytes or chunked.bytes > _LARGEST_RATIO * content.size:
            return content
        limits.check("decoded_bytes", chunked.bytes, "the datasets in chunks")
        target = Nameless()
        user = content.raw(0, source.userblock_size)
        _write(source, target)
    target.seek(0)
    target.write(user.data)
    target.flush()
    return Content(cast(Any, target), 0, target.seek(0, 2))


class _Chunked:
    """How many bytes the numbers in chunks are."""

    bytes = 0

    def add(self, _: str, item: Any) -> None:
        if _is_chunked(item):
            self.bytes += math.prod(item.shape) * item.dtype.itemsize


def _is_chunked(item: Any) -> bool:
    """Whether these are numbers in chunks; most of which are there, so that a small file does not become a huge one."""
    if not hasattr(item, "dtype") or item.chunks is None or type_name(item) == "":
        return False
    return bool(item.nbytes <= _LARGEST_RATIO * item.id.get_storage_size())


def _write(source: Any, target: Nameless) -> None:
    import h5py  # type: ignore[import-untyped]

    with h5py.File(target, "w", userblock_size=source.userblock_size) as file:
        _copy_attributes(source, file)
        _Copier().fill(source, file, 0)


class _Copier:
    """Copies groups; an object with two names keeps both."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}

    def fill(self, source: Any, target: Any, depth: int) -> None:
        import h5py

        if depth > _MOST_GROUPS:
            raise ModelError(f"groups are more than {_MOST_GROUPS} deep inside each other")
        for name in source:
            link = source.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                target[name] = link
                continue
            item = source[name]
            if item in self.made:
                target[name] = self.made[item]
            elif isinstance(item, h5py.Group):
                self.made[item] = group = target.create_group(name, track_order=_is_ordered(item))
                _copy_attributes(item, group)
                self.fill(item, group, depth + 1)
            else:
                self.made[item] = _copied(item, source, target, name)


def _is_ordered(group: Any) -> bool:
    return bool(group.id.get_create_plist().get_link_creation_order())


def _copied(item: Any, source: Any, target: Any, name: str) -> Any:
    if not _is_chunked(item):
        source.copy(name, target, name=name)
        return target[name]
    made = target.create_dataset(name, shape=item.shape, dtype=item.dtype)
    for piece in item.iter_chunks():
        made[piece] = item[piece]
    _copy_attributes(item, made)
    return made


def _copy_attributes(source: Any, target: Any) -> None:
    """Attributes in the types that they have."""
    from h5py import h5a

    for number in range(h5a.get_num_attrs(source.id)):
        attribute = h5a.open(source.id, index=number)
        made = h5a.create(target.id, attribute.name, attribute.get_type(), attribute.get_space())
        if attribute.shape is not None and math.prod(attribute.shape):
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            made.write(values)
