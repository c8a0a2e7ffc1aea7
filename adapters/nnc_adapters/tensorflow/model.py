"""From the files of a model and the variables in them to a `SourceModel`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from nnc_adapters.base import Options
from nnc_adapters.shared import exactness, remarks
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS, named
from nnc_adapters.shared.exactness import OPTIMIZER
from nnc_adapters.shared.lazy import LazyTensors
from nnc_adapters.shared.names import expressible
from nnc_adapters.shared.selection import Selection
from nnc_adapters.shared.thrift import Candidate
from nnc_adapters.tensorflow.content import Content
from nnc_adapters.tensorflow.manifest import CHECKSUM, EXTRA, File, Manifest, Place, check_path, check_places, pack
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, ParameterType, SourceModel, Topology
from nnc_core.records import dataclass
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["Opened", "Span", "Variable", "source_model"]


@dataclass(frozen=True, slots=True)
class Span:
    """Where values begin."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Variable:
    """An array of numbers: the same values at each of its ``spans``.

    ``role`` is None where it is not known; an ``optimizer`` keeps the variable for itself; ``exact`` is why it must not
    change, if it must not.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    spans: tuple[Span, ...]
    role: ParameterType | None = None
    optimizer: bool = False
    exact: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A model as it is on disk.

    ``attributes`` are what an archive says about its members, ``remarks`` sentences for a person about what is carried,
    ``checked`` the files of which it must be known whether they have changed.
    """

    kind: str
    files: Mapping[str, Content]
    variables: Sequence[Variable]
    folders: tuple[str, ...] = ()
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()


def source_model(opened: Opened, options: Options) -> SourceModel:
    """The coded variables as lazy tensors, and everything else as topology.

    The variables of an optimizer are never coded, unless they are chosen, and become zeros unless they are kept.
    """
    order = {path: number for number, path in enumerate(opened.files)}
    reasons = exactness.reasons({v.name: exactness.Declared(v.dtype, v.shape) for v in opened.variables})
    reasons |= {v.name: v.exact for v in opened.variables if v.exact and v.dtype in FLOATS}
    found = (replace(v, optimizer=v.optimizer or reasons.get(v.name) == OPTIMIZER) for v in opened.variables)
    # in the order in which a model is written
    variables = sorted(found, key=lambda v: min((order[span.file], span.offset) for span in v.spans))
    coded = _coded(variables, opened, options, reasons)
    dropped = [] if options.keep_optimizer else [v for v in variables if _is_slot(v) and v.name not in options.chosen]
    manifest = Manifest(opened.kind, tuple(_files(opened, coded, dropped, options.limits)), opened.folders)
    tensors = LazyTensors({v.name: partial(_load, v, opened) for v in coded})
    info = ModelInfo(parameter_type={v.name: v.role for v in coded if v.role is not None})
    exact = {v.name: OPTIMIZER if v.optimizer else reasons[v.name] for v in coded if v.optimizer or v.name in reasons}
    topology = Topology(TopologyStorageFormat.NNR_TPL_TEF, pack(manifest))
    return SourceModel(tensors, topology, info, exact, tuple(_remarks(opened, variables, options.keep_optimizer)))


def _remarks(opened: Opened, variables: Sequence[Variable], keep_optimizer: bool) -> Iterator[str]:
    """What a person should know about what is carried."""
    yield from opened.remarks
    yield from remarks.bitstreams(opened.files)
    if keep_optimizer:
        kept = sum(len(v.spans) * math.prod(v.shape) * named(v.dtype, EXTRA).itemsize for v in variables if _is_slot(v))
        yield from remarks.optimizer(kept, sum(content.size for content in opened.files.values()))


def _coded(
    variables: Sequence[Variable], opened: Opened, options: Options, reasons: Mapping[str, str]
) -> list[Variable]:
    selection = Selection(options)
    found = [v for v in variables if _is_coded(v, opened, options, selection, v.name in reasons)]
    chosen = {v.name for v in found if v.name in options.chosen}
    paying = selection.paying({v.name: _candidate(v, opened, v.name in reasons) for v in found if v.name not in chosen})
    return [v for v in found if v.name in chosen | paying]


def _candidate(variable: Variable, opened: Opened, exact: bool) -> Candidate:
    return Candidate(variable.name, variable.dtype, variable.shape, partial(_load, variable, opened), exact)


def _is_coded(variable: Variable, opened: Opened, options: Options, selection: Selection, exact: bool) -> bool:
    options.limits.check("dimensions", len(variable.shape), f"tensor {variable.name!r}")
    if variable.dtype not in FLOATS | INTEGERS or not expressible(variable.name, options.limits):
        return False
    if variable.name in options.chosen:
        return True
    if variable.optimizer:
        return False
    return selection.takes(variable.dtype, math.prod(variable.shape), partial(_load, variable, opened), exact=exact)


def _is_slot(variable: Variable) -> bool:
    """Whether an optimizer keeps a number for each weight here; its counters and rates are scalars."""
    return variable.optimizer and variable.dtype in FLOATS and variable.shape != ()


def _load(variable: Variable, opened: Opened) -> NDArray[Any]:
    span = variable.spans[0]
    return opened.files[span.file].array(span.offset, named(variable.dtype, EXTRA), variable.shape)


def _files(opened: Opened, coded: list[Variable], dropped: list[Variable], limits: Limits) -> Iterator[File]:
    places: dict[str, list[Place]] = {path: [] for path in opened.files}
    for name, variable in (*((v.name, v) for v in coded), *((None, v) for v in dropped)):
        for span in variable.spans:
            places[span.file].append(Place(span.offset, name, variable.dtype, variable.shape))
    left = sum(c.size for c in opened.files.values()) - sum(p.size for found in places.values() for p in found)
    limits.check("topology_bytes", left, "what is not coded")
    for path, content in opened.files.items():
        found = tuple(sorted(places[path], key=lambda p: p.offset))
        check_places(found, content.size, path)
        attributes = dict(opened.attributes.get(path, {}))
        if found and path in opened.checked:
            attributes[CHECKSUM] = zlib.crc32(content.raw().data)
        yield File(check_path(path), content.size, _around(content, found), found, attributes)


def _around(content: Content, places: tuple[Place, ...]) -> bytes:
    """The bytes of a file that belong to none of the places."""
    starts = (0, *(place.end for place in places))
    ends = (*(place.offset for place in places), content.size)
    gaps = (content.pieces(start, end - start) for start, end in zip(starts, ends, strict=True))
    return b"".join(piece for gap in gaps for piece in gap)
