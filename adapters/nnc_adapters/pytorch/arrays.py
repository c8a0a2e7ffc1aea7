"""Every tensor of a file as an array, whether it is coded or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.base import Options
from nnc_adapters.pytorch.layout import File, opened
from nnc_adapters.pytorch.reader import root
from nnc_adapters.pytorch.views import ITEM_SIZES, View
from nnc_adapters.shared.dtypes import named
from nnc_adapters.shared.lazy import LazyTensors

__all__ = ["tensors"]


def tensors(path: Path, options: Options) -> LazyTensors:
    """The tensors of the model at ``path`` by name, in model order; those without a type of numpy are left out."""
    model = opened(path, options.limits, opaque=options.opaque)
    depth = len(root(model))
    found = ((file, view) for file in model.files for view in file.scan.views if len(view.path) > depth)
    return LazyTensors({".".join(v.path[depth:]): partial(_load, file, v) for file, v in found if _has_arrays(v)})


def _has_arrays(view: View) -> bool:
    try:
        return view.dtype in ITEM_SIZES and named(view.dtype).itemsize == ITEM_SIZES[view.dtype]
    except ValueError:
        return False


def _load(file: File, view: View) -> NDArray[Any]:
    dtype = named(view.dtype)
    if not view.elements:
        return np.empty(view.shape, dtype)
    words = file.data.array(view.start, view.end - view.start).view(f"<u{dtype.itemsize}")
    flat = words.astype(f"=u{dtype.itemsize}").view(dtype)
    strides = [step * dtype.itemsize for step in view.strides]
    return np.array(np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False))
