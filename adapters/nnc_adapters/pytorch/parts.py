"""The files of a model of several, each read and coded by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nnc_adapters.base import Options, Part, Parts
from nnc_adapters.pytorch import roles
from nnc_adapters.pytorch.layout import REPOSITORY, SHARDED, File, Model, opened, scan
from nnc_adapters.pytorch.reader import Keys, Known, exact_reasons, read_opened
from nnc_adapters.pytorch.views import Data, View
from nnc_core.errors import ModelError
from nnc_core.nnr_model import ModelInfo, SourceModel

__all__ = ["parts", "read"]


def parts(path: Path, options: Options) -> Parts:
    """What is in a folder as a hub has it, or what an index lists; nothing but the headers of the files is read."""
    model = opened(path, options.limits, opaque=options.opaque)
    if model.kind not in (SHARDED, REPOSITORY):
        raise ModelError("is not a folder with files of weights, nor an index of shards", file=str(path))
    reasons = exact_reasons(model)
    info = roles.from_names({".".join(view.path): view.shape for file in model.files for view in _named(file)})
    coded = tuple(_part(file, reasons, info) for file in model.files if any(_named(file)))
    names = {part.name for part in coded}
    folder = path if path.is_dir() else path.parent
    return Parts(folder, coded, tuple(file.name for file in model.files if file.name not in names))


def _named(file: File) -> Iterator[View]:
    return (view for view in file.scan.views if view.path)


def _part(file: File, reasons: Mapping[Keys, str], info: ModelInfo) -> Part:
    depth, prefix = len(file.before), "".join(f"{key}." for key in file.before)
    own = {view.path: view.path[depth:] for view in _named(file)}
    names = {".".join(path): ".".join(local) for path, local in own.items()}
    types, blocks = info.get("parameter_type", {}), info.get("block_identifier", {})
    here = ModelInfo(
        parameter_type={names[name]: types[name] for name in names if name in types},
        block_identifier={names[name]: names[blocks[name]] for name in names if blocks.get(name) in names},
    )
    known = Known({local: reasons[path] for path, local in own.items() if path in reasons}, here)
    return Part(file.name, prefix, known)


def read(folder: Path, part: Part, options: Options) -> SourceModel:
    """Read one file."""
    data = Data.of_file(folder / part.name)
    found = scan(data, options.limits, opaque=options.opaque)
    return read_opened(Model(found.kind, [File("", data, found)]), options, part.known)
