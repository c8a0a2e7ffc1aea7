"""HDF5 files of Keras: weights in place, everything else as it is.

The package h5py says where the values of a dataset are. They are coded where they lie in one piece, see `contiguous`;
datasets in other files stay as they are (links to other files are never followed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from nnc_adapters.shared.dtypes import FLOATS, INTEGERS
from nnc_adapters.tensorflow import roles
from nnc_adapters.tensorflow.content import Content, View
from nnc_adapters.tensorflow.model import Opened, Span, Variable
from nnc_core.errors import MissingDependencyError, ModelError, NncError

__all__ = [
    "MOST_GROUPS",
    "WEIGHTS",
    "check_heaps",
    "has_weights",
    "is_hdf5",
    "open_hdf5",
    "opened",
    "plain_name",
    "type_name",
    "variables",
    "visited",
]

WEIGHTS = ".weights.h5"
"""How Keras wants the names of files to end that have nothing but weights."""

MOST_GROUPS = 64
"""Groups inside each other."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST_BLOCK = 512  # of the user, which doubles until the signature comes

_OPTIMIZERS = ("optimizer/", "optimizer_weights/")
_MARKS = {"layer_names", "model_config", "keras_version"}
_GROUPS = {"layers", "vars", "_layer_checkpoint_dependencies"}

# What Keras 3 numbers: the variables of a layer in the order in which it makes them.
_KERNEL_BIAS = ("kernel", "bias")
_CELL = ("kernel", "recurrent_kernel", "bias")
_VARIABLES = {
    **dict.fromkeys(("dense", "einsum_dense", "query_dense", "key_dense", "value_dense", "output_dense"), _KERNEL_BIAS),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _KERNEL_BIAS),
    **dict.fromkeys(("conv1d_transpose", "conv2d_transpose", "conv3d_transpose"), _KERNEL_BIAS),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), ("depthwise_kernel", "bias")),
    **dict.fromkeys(("separable_conv1d", "separable_conv2d"), ("depthwise_kernel", "pointwise_kernel", "bias")),
    **dict.fromkeys(("cell", "lstm_cell", "gru_cell", "simple_rnn_cell"), _CELL),
    "embedding": ("embeddings",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_COUNTED = re.compile(r"_\d+$")


def is_hdf5(content: Content) -> bool:
    """Whether the file has the signature at its beginning, or behind a block of the user."""
    places = [0, _FIRST_BLOCK]
    while places[-1] < content.size:
        places.append(2 * places[-1])
    size = len(_SIGNATURE)
    return any(content.raw(at, size).tobytes() == _SIGNATURE for at in places if at + size <= content.size)


def open_hdf5(content: Content) -> Opened:
    """Open a file of weights or a whole model, without chunks; `ModelError` where it is damaged."""
    with opened(content) as file:
        name = f"model{WEIGHTS}" if _GROUPS & set(file) and not _MARKS & set(file.attrs) else "model.h5"
    return Opened("hdf5", {name: content}, variables(content, name))


def has_weights(content: Content) -> bool:
    """Whether Keras wrote this, or it has floating-point numbers; also where that cannot be found out without h5py."""
    try:
        with opened(content) as file:
            return bool(
                _MARKS & set(file.attrs) or {*_GROUPS, "model_weights"} & set(file) or file.visititems(_is_float)
            )
    except MissingDependencyError:
        return True
    except ModelError:
        return False


def visited(file: Any) -> list[tuple[str, Any]]:
    """Everything in the file, with its path; `ModelError` for groups too deep inside each other."""
    found: list[tuple[str, Any]] = []

    def note(path: str, item: Any) -> None:
        check_depth(path)
        found.append((path, item))

    file.visititems(note)
    return found


def check_depth(path: str) -> None:
    """`ModelError` for a path through too many groups: those of all groups inside each other would fill memory."""
    if path.count("/") > MOST_GROUPS:
        raise ModelError(f"groups are more than {MOST_GROUPS} deep inside each other")


def _is_float(path: str, item: Any) -> bool | None:
    """True for a dataset of floating-point numbers, None for others, to look further."""
    check_depth(path)
    return (hasattr(item, "dtype") and item.dtype.kind == "f") or None


def variables(content: Content, name: str, prefix: str = "") -> list[Variable]:
    """The arrays of numbers in an HDF5 file that ``name`` is the path of, called by their paths after ``prefix``."""
    with opened(content) as file:
        found = list(_variables(file, name, prefix))
    shapes = {variable.name: variable.shape for variable in found}
    plain = {path: plain_name(path) for path in shapes}
    known = roles.by_name({plain[path]: shape for path, shape in shapes.items()})
    return [replace(variable, role=known.get(plain[variable.name])) for variable in found]


def check_heaps(content: Content) -> None:
    """`ModelError` where libhdf5 would go round in circles: at free space of no size in a global heap."""
    at, before, left = 0, b"", content.size
    for piece in content.pieces(0, content.size):
        data = before + piece
        for found in re.finditer(rb"GCOL\x01\0\0\0", data):
            left -= _check_heap(content, at - len(before) + found.start(), left)
        at, before = at + len(piece), data[-7:]


def _check_heap(content: Content, start: int, most: int) -> int:
    """Follow the objects of a heap; gives its size, or 0 where it cannot be one."""
    size = int.from_bytes(content.raw(start + 8, 8).tobytes(), "little") if start + 16 <= content.size else 0
    if not 16 <= size <= content.size - start:
        return 0
    if size > most:
        raise ModelError("the HDF5 file is damaged: its global heaps overlap")
    heap, at = content.raw(start, size).tobytes(), 16
    while at + 16 <= size:
        length = int.from_bytes(heap[at + 8 : at + 16], "little")
        step = 16 + length if any(heap[at : at + 2]) else length  # free space, which has no number, counts its header
        if step < 16:
            raise ModelError(f"the HDF5 file is damaged: free space of {step} bytes in the global heap at byte {start}")
        at += -(-step // 8) * 8
    return size


@contextmanager
def opened(content: Content) -> Iterator[Any]:
    """The file for h5py; `ModelError` for what that finds wrong with it."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingDependencyError("h5py", "tensorflow", "a Keras file") from error
    check_heaps(content)
    try:
        with h5py.File(View(content), "r") as file:
            yield file
    except NncError:
        raise
    except Exception as error:  # of many types: libhdf5 finds damage wherever it looks
        raise ModelError(f"the HDF5 file is damaged: {error}") from error


def _variables(file: Any, name: str, prefix: str) -> Iterator[Variable]:
    for path, item in visited(file):
        if hasattr(item, "dtype") and _is_in_place(item):
            span = Span(name, item.id.get_offset())
            optimizer = path.startswith(_OPTIMIZERS)
            yield Variable(prefix + path, type_name(item), item.shape, (span,), optimizer=optimizer)


def type_name(dataset: Any, kind: Any = None) -> str:
    """The data type of a dataset, as far as it is coded; that of its numbers as ``kind``, if this is given.

    Keras keeps bfloat16 as bytes of which an attribute tells.
    """
    kind = dataset.dtype if kind is None else kind
    if kind.kind == "V" and kind.itemsize == 2 and kind.names is None and dataset.attrs.get("dtype") == "bfloat16":
        return "bfloat16"
    return str(kind.name) if kind.name in FLOATS | INTEGERS and kind.newbyteorder("<") == kind else ""


def _is_in_place(dataset: Any) -> bool:
    """Whether the values lie in the file as an array in memory would."""
    known = type_name(dataset) and dataset.shape is not None
    layout = dataset.id.get_create_plist()
    # only a contiguous layout has an offset, and only once values were written
    elsewhere = layout.get_external_count() or dataset.id.get_offset() is None
    return bool(known) and dataset.size > 0 and not elsewhere and dataset.id.get_storage_size() == dataset.nbytes


def plain_name(path: str) -> str:
    """``path``, with the name that the variable has in its layer in place of a number."""
    layer, _, number = path.rpartition("/vars/")
    names = _VARIABLES.get(_COUNTED.sub("", layer.rpartition("/")[2]), ())
    known = number.isdecimal() and int(number) < len(names)
    return f"{layer}/{names[int(number)]}" if known else path
