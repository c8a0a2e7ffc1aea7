"""HDF5 files without chunks: what is compressed, or not in one piece, is put in one piece before it is coded.

The same groups, attributes, links and values, in a file that h5py writes; the model is restored as this file.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from nnc_adapters.tensorflow.content import Content, Nameless
from nnc_adapters.tensorflow.hdf5 import MOST_GROUPS, opened, type_name, visited
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["contiguous"]

_LARGEST_RATIO = 1100  # of deflate
_MOST_PLACES = 2  # for each chunk that is there


def contiguous(content: Content, limits: Limits) -> Content:
    """``content``, or a file in its place in which numbers lie in one piece each, if some do not.

    `ModelError` where it is damaged, `LimitError` where it would become too large.
    """
    with opened(content) as source:
        scattered = _Scattered()
        for _, item in visited(source):
            scattered.add(item)
        if not scattered.bytes or scattered.bytes > _LARGEST_RATIO * content.size:
            return content
        limits.check("decoded_bytes", scattered.bytes, "the datasets in chunks")
        target = Nameless()
        user = content.raw(0, source.userblock_size)
        _write(source, target)
    target.seek(0)
    target.write(user.data)
    target.flush()
    return Content(cast(Any, target), 0, target.seek(0, 2))


class _Scattered:
    """How many bytes the numbers are that do not lie in one piece."""

    bytes = 0

    def add(self, item: Any) -> None:
        if _is_scattered(item):
            self.bytes += math.prod(item.shape) * item.dtype.itemsize


def _is_scattered(item: Any) -> bool:
    """Whether these are numbers in chunks, within a header, or with their bytes in the other order.

    Most of them are there, so that a small file does not become a huge one.
    """
    if not hasattr(item, "dtype") or item.shape is None or type_name(item, _little(item)) == "":
        return False
    whole = item.chunks is None and item.dtype == _little(item) and not _is_compact(item)
    small = bool(0 < item.nbytes <= _LARGEST_RATIO * item.id.get_storage_size())
    return not whole and small and (item.chunks is None or _has_most_chunks(item))


def _has_most_chunks(item: Any) -> bool:
    places = math.prod(-(-size // part) for size, part in zip(item.shape, item.chunks, strict=True))
    return bool(places <= _MOST_PLACES * item.id.get_num_chunks())


def _is_compact(item: Any) -> bool:
    from h5py import h5d  # type: ignore[import-untyped]

    return bool(item.id.get_create_plist().get_layout() == h5d.COMPACT)


def _little(item: Any) -> Any:
    """The type of the numbers, little endian."""
    return item.dtype.newbyteorder("<")


def _write(source: Any, target: Nameless) -> None:
    import h5py

    with h5py.File(target, "w", userblock_size=source.userblock_size) as file:
        _copy_attributes(source, file)
        _Copier().fill(source, file, 0)


class _Copier:
    """Copies groups; an object with two names keeps both."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}

    def fill(self, source: Any, target: Any, depth: int) -> None:
        import h5py

        if depth > MOST_GROUPS:
            raise ModelError(f"groups are more than {MOST_GROUPS} deep inside each other")
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
    if not _is_scattered(item):
        source.copy(name, target, name=name)
        return target[name]
    made = target.create_dataset(name, shape=item.shape, dtype=_little(item))
    for piece in [()] if item.chunks is None else item.iter_chunks():
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
