"""Where a generated suite keeps its files, and what the arrays in them are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.updates import fingerprints, model_digest

Tensors = Mapping[str, NDArray[Any]]

DEFAULT = Path("build") / "conformance"
MODEL_INFO = "model_info/"
"""What the names of arrays begin with that are no tensors, but say something of the model (Part 18, Tables 3 to 5)."""
_DESCRIBED = (
    "performance_maps",
    "prune_rep_type",
    "prune_bit_mask",
    "prune_tpl_elem_ids",
    "prune_tpl_count_dims",
    "prune_tpl_dims",
    "sparse_bit_mask",
    "bit_mask_order_flag",
    "topology_elem_id_list",
)


@dataclass(frozen=True)
class Folder:
    """A generated suite: ``streams``, and in ``expected`` what a decoder must return after each of them."""

    path: Path

    def stream(self, name: str) -> Path:
        return self.path / "streams" / name

    def out_of_band(self, name: str) -> Path:
        """The parameters that come with a bitstream in a JSON file."""
        return self.path / "streams" / f"{name.removesuffix('.nctm')}_oob.json"

    def expected(self, name: str) -> Path:
        return self.path / "expected" / f"{name.removesuffix('.nctm')}.npz"

    def make(self) -> None:
        for name in ("streams", "expected"):
            (self.path / name).mkdir(parents=True, exist_ok=True)


def save(path: Path, tensors: Tensors) -> None:
    np.savez_compressed(path, **tensors)  # type: ignore[arg-type]


def load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file; ValueError or OSError for anything else, pickles included."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def digest(tensors: Tensors) -> str:
    """A digest of names, types, shapes and values, in whatever order the tensors are."""
    return model_digest(fingerprints(tensors))


def described(info: ModelInfo) -> dict[str, NDArray[Any]]:
    """What a bitstream says of a model beside its tensors, as arrays: float32, int32, or text."""
    return dict(_arrays(MODEL_INFO, {key: info[key] for key in _DESCRIBED if key in info}))  # type: ignore[literal-required]


def _arrays(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _arrays(f"{prefix}{key}/", value)
        elif isinstance(value, list) and value and isinstance(value[0], list):
            yield from _arrays(f"{prefix}{key}/", {str(number): each for number, each in enumerate(value)})
        else:
            yield prefix + key, _array(value)


def _array(value: Any) -> NDArray[Any]:
    array = np.atleast_1d(np.asarray(value))
    kinds: dict[str, Any] = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.int32}
    return array.astype(kinds.get(array.dtype.kind, array.dtype))
