"""What Keras files say about their layers: the configuration, and which tensor is whose."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnc_adapters.tensorflow.content import Content, View
from nnc_adapters.tensorflow.manifest import Manifest
from nnc_adapters.tensorflow.writer import skeleton
from nnc_core.errors import ModelError

__all__ = ["KERAS", "KerasModel", "Variables", "read_keras"]

KERAS = ("keras", "hdf5")
"""The kinds of models that `read_keras` takes."""

_JSON_BYTES = 1 << 26

Path = tuple[str, ...]


@dataclass
class Variables:
    """The tensors of a model by the names of their layers, from the outside in, and their own names or numbers."""

    groups: dict[Path, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def below(self, path: Path) -> list[Path]:
        """The groups of a layer and of those inside it."""
        return [group for group in self.groups if group[: len(path)] == path]

    def only(self, path: Path) -> Path:
        """The one group of a layer or inside it; LookupError where there are several."""
        if path in self.groups:
            return path
        (found,) = self.below(path) or (path,)
        return found

    def get(self, path: Path, names: Sequence[str], *, others: Mapping[str, str] | None = None) -> dict[str, str]:
        """The tensors of a layer that makes variables of these ``names`` in this order."""
        group = self.groups.get(path, {})
        numbered = {str(number): name for number, name in enumerate(names)}
        renamed = {**numbered, **{name: name for name in names}, **(others or {})}
        return {renamed[leaf]: tensor for leaf, tensor in group.items() if leaf in renamed}


@dataclass(frozen=True)
class KerasModel:
    """``config`` is that of the model; None where the file has none."""

    config: Mapping[str, Any] | None
    variables: Variables


def read_keras(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> KerasModel:
    """The layers of a ``.keras`` or ``.h5`` file."""
    variables = Variables(shapes=shapes)
    files = {file.path: file for file in manifest.files}
    if manifest.kind == "keras":
        weights = [name for name in files if name.endswith(".weights.h5")]
        if len(weights) != 1:
            return KerasModel(None, variables)
        with _hdf5(skeleton(files[weights[0]])) as file:
            _by_names_of_groups(file, variables, shapes)
        return KerasModel(_json(files["config.json"].exact), variables)
    with _hdf5(skeleton(manifest.files[0])) as file:
        if "layer_names" not in file.attrs and "model_weights" not in file:
            _by_names_of_groups(file, variables, shapes)
            return KerasModel(None, variables)
        _by_paths(variables, shapes)
        config = file.attrs.get("model_config")
        found = _json(config if isinstance(config, bytes) else str(config).encode()) if config is not None else None
        return KerasModel(found, variables)


def _hdf5(content: Content) -> Any:
    import h5py  # type: ignore[import-untyped]

    try:
        return h5py.File(io.BufferedReader(View(content)), "r")
    except Exception as error:  # of many types: libhdf5 finds damage wherever it looks
        raise ModelError(f"the HDF5 file is damaged: {error}") from error


def _json(data: bytes) -> Mapping[str, Any] | None:
    if len(data) > _JSON_BYTES:
        return None
    try:
        found = json.loads(data)
    except (RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _by_names_of_groups(file: Any, variables: Variables, shapes: Mapping[str, Any]) -> None:
    """Keras 3: ``layers/conv2d_1/vars/0``, where the layer's own name is an attribute of ``vars``."""
    for tensor in shapes:
        *groups, leaf = tensor.split("/")
        path: list[str] = []
        for depth, group in enumerate(groups):
            if group in ("vars", "layers"):
                continue
            name = _attribute(file, "/".join([*groups[: depth + 1], "vars"]), "name")
            path.append(str(name) if name is not None else group)
        variables.groups[tuple(path)][leaf] = tensor


def _attribute(file: Any, path: str, key: str) -> Any:
    try:
        found = file[path].attrs.get(key)
    except (KeyError, ValueError, OSError):
        return None
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def _by_paths(variables: Variables, shapes: Mapping[str, Any]) -> None:
    """Older files: ``model_weights/conv2d_1/conv2d_1/kernel:0``."""
    for tensor in shapes:
        pieces = tensor.removeprefix("model_weights/").split("/")
        if len(pieces) > 2 and pieces[0] == pieces[1]:
            pieces = pieces[1:]
        variables.groups[tuple(pieces[:-1])][pieces[-1].partition(":")[0]] = tensor
