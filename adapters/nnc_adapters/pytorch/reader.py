"""From files to a `SourceModel`: which tensors are coded, their names, and the topology without them."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from nnc_adapters.base import Options
from nnc_adapters.pytorch import roles
from nnc_adapters.pytorch.layout import DESCRIPTION, File, Model, opened
from nnc_adapters.pytorch.views import Checksum, Layout, View, separate, slots
from nnc_adapters.shared import exactness, packing, remarks
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS
from nnc_adapters.shared.lazy import LazyTensors
from nnc_adapters.shared.names import expressible, free
from nnc_adapters.shared.selection import SMALLEST_FLOATS, SMALLEST_INTEGERS, Selection, fits
from nnc_adapters.shared.thrift import Candidate
from nnc_core.errors import UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.syntax import Buffer
from nnc_core.tables.code_points import TopologyStorageFormat

_OPTIMIZER = re.compile(r"(base_)?(optim(izer)?s?([_-]?states?)?([_-]?dicts?)?|opt_states?)(_?\d+)?", re.IGNORECASE)

Keys = tuple[str, ...]


class Known(NamedTuple):
    """What the files beside a part tell about its tensors: why some must be exact, by path, and their roles."""

    reasons: Mapping[Keys, str]
    info: ModelInfo


def read(path: Path, options: Options) -> SourceModel:
    """Read the model at ``path`` as the ``options`` say."""
    return read_opened(opened(path, options.limits, opaque=options.opaque), options)


def read_opened(model: Model, options: Options, known: Known | None = None) -> SourceModel:
    """Read a model of which the files are found; ``known`` is what is not in them."""
    if not options.strip_debug:
        return described(model, options, known)
    from nnc_adapters.pytorch.stripping import stripped

    smaller, dropped = stripped(model, options.limits)
    found = described(smaller, options, known)
    return replace(found, remarks=(*found.remarks, *dropped))


def described(model: Model, options: Options, known: Known | None = None) -> SourceModel:
    """The tensors of ``model``, and its topology; what an optimizer has for each weight is zeros, if not kept."""
    reasons = exact_reasons(model) if known is None else known.reasons
    model = model if options.bits else _with_optimizer(model, reasons)
    coded = Coded(model, options, reasons)
    fetch = {name: partial(_fetch, file, view) for name, (file, view) in coded.tensors.items()}
    shapes = {name: view.shape for name, (_, view) in coded.tensors.items()}
    data = packing.pack({DESCRIPTION: _description(model, coded), **_exact(model, coded, options.limits)})
    info = roles.from_names(shapes) if known is None else known.info
    exact = {name: reasons[view.path] for name, (_, view) in coded.tensors.items() if view.path in reasons}
    topology = Topology(TopologyStorageFormat.NNR_TPL_PYT, data)
    return SourceModel(LazyTensors(fetch), topology, info, exact, tuple(_remarks(model, coded)))


def _remarks(model: Model, coded: Coded) -> Iterator[str]:
    """What a person should know about what is carried."""
    opaque = sorted({name for file in model.files for name in file.scan.opaque})
    if opaque:
        yield f"objects are carried as they are, and loading the file may run code: {', '.join(opaque)}"
    yield from remarks.bitstreams(file.name for file in model.files)
    kept = sum(end - start for file in model.files for start, end in coded.slots(file))
    whole = sum(len(file.data.view) for file in model.files)
    if coded.keep_optimizer:
        yield from remarks.optimizer(kept, whole)
    unknown = Counter(v.dtype for file in model.files for v in file.scan.views if v.path and _is_unknown_float(v))
    for dtype, count in sorted(unknown.items()):
        yield f"{count} tensors of type {dtype}, which NNR does not have, are carried exactly"


def _is_unknown_float(view: View) -> bool:
    return view.dtype.lower().startswith(("float", "f", "complex")) and view.dtype not in FLOATS


def exact_reasons(model: Model) -> dict[Keys, str]:
    """Why tensors must be exact, by their paths; what shares its bytes with such a tensor must be, too."""
    views = [view for file in model.files for view in file.scan.views if view.path]
    by_name = exactness.reasons({".".join(v.path): exactness.Declared(v.dtype, v.shape) for v in views})
    found = {v.path: by_name[name] for v in views if (name := ".".join(v.path)) in by_name}
    return found | {v.path: exactness.OPTIMIZER for v in views if v.optimizer or _is_kept_by_an_optimizer(v)}


def _is_kept_by_an_optimizer(view: View) -> bool:
    """Whether one of the keys that lead to a tensor says so."""
    return view.dtype in FLOATS and any(map(_OPTIMIZER.fullmatch, ".".join(view.path).split(".")[:-1]))


def _with_optimizer(model: Model, reasons: Mapping[Keys, str]) -> Model:
    """``model``, in which the tensors that an optimizer keeps are marked."""

    def marked(view: View) -> View:
        kept = reasons.get(view.path) == exactness.OPTIMIZER
        return replace(view, exact=True, optimizer=True) if kept else view

    files = [replace(f, scan=replace(f.scan, views=list(map(marked, f.scan.views)))) for f in model.files]
    return replace(model, files=files)


def _fetch(file: File, view: View) -> Any:
    return layout(view).load(file.data.array(view.start, layout(view).size))


def layout(view: View) -> Layout:
    """How the tensor lies in its place."""
    return Layout(view.dtype, view.shape, view.order)


def root(model: Model) -> Keys:
    """The keys that lead to all the tensors that a model is made of, where these may lie inside something larger."""
    views = [view for file in model.files for view in file.scan.views if view.path]
    return _common(_typical(views)) if model.nested else ()


class Coded:
    """The tensors of a model that are coded, by name and in model order; ``root`` are the keys that all share."""

    def __init__(self, model: Model, options: Options, reasons: Mapping[Keys, str]) -> None:
        self.keep_optimizer = options.keep_optimizer
        everything = [(file, view) for file in model.files for view in file.scan.views if view.path]
        self.root = root(model)
        more = {v.path for _, v in everything if ".".join(v.path[len(self.root) :]) in options.chosen}
        selection = Selection(options)
        bits = options.bits
        views = [(file, view) for file in model.files for view in _wanted(file, more, reasons, selection, bits=bits)]
        found = {id(view): _candidate(file, view, reasons) for file, view in views if view.path not in more}
        wanted = selection.paying(found) | {id(view) for _, view in views if view.path in more}
        self.tensors = dict(self._named([pair for pair in everything if id(pair[1]) in wanted], options.limits))
        self.names = {id(view): name for name, (_, view) in self.tensors.items()}

    def _named(self, pairs: list[tuple[File, View]], limits: Limits) -> Iterator[tuple[str, tuple[File, View]]]:
        taken: Counter[str] = Counter()
        for index, (file, view) in enumerate(pairs):
            name = ".".join(view.path[len(self.root) :])
            yield free(name if expressible(name, limits) else f"tensor{index}", taken), (file, view)

    def holes(self, file: File) -> list[tuple[View, str]]:
        """The coded tensors of ``file`` and their names, as they lie one behind the other."""
        found = [(view, self.names[id(view)]) for view in file.scan.views if id(view) in self.names]
        return sorted(found, key=lambda hole: hole[0].start)

    def zeros(self, file: File) -> list[tuple[int, int]]:
        """The bytes of ``file`` that become zeros: first and behind the last of each piece."""
        return [] if self.keep_optimizer else self.slots(file)

    def slots(self, file: File) -> list[tuple[int, int]]:
        """The bytes of what an optimizer keeps, unless a rule has it coded."""
        coded = {view.storage for view, _ in self.holes(file)}
        return [slot for slot in slots(file.scan.views) if slot not in coded]

    def gaps(self, file: File) -> list[tuple[int, int]]:
        """The bytes of ``file`` that are not carried as they are."""
        return sorted([*((view.start, view.end) for view, _ in self.holes(file)), *self.zeros(file)])

    def checksums(self, file: File) -> list[Checksum]:
        """The checksums in ``file`` that change with what fills the gaps."""
        spans = {*(view.storage for view, _ in self.holes(file)), *self.zeros(file)}
        return [checksum for checksum in file.scan.checksums if (checksum.start, checksum.end) in spans]


def _wanted(
    file: File, chosen: Collection[Keys], reasons: Mapping[Keys, str], selection: Selection, *, bits: bool
) -> Iterator[View]:
    def wanted(view: View) -> bool:
        load = partial(_fetch, file, view)
        if view.path in chosen:
            return view.has_bits if bits else view.codable and fits(view.dtype, load)
        if not view.path or not view.codable or view.optimizer:
            return False
        return selection.takes(view.dtype, view.elements, load, exact=view.path in reasons)

    return separate(file.scan.views, wanted)


def _candidate(file: File, view: View, reasons: Mapping[Keys, str]) -> Candidate:
    name, exact = ".".join(view.path), view.path in reasons
    return Candidate(name, view.dtype, view.shape, partial(_fetch, file, view), exact)


def _typical(views: list[View]) -> list[Keys]:
    """The containers of the tensors that a model is made of: what the values are does not matter."""
    tiers = (FLOATS, SMALLEST_FLOATS), (FLOATS, 1), (INTEGERS, SMALLEST_INTEGERS), (INTEGERS, 1)
    for types, least in tiers:
        found = [v.path[:-1] for v in views if not v.exact and v.dtype in types and v.elements >= least]
        if found:
            return found
    return []


def _common(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    shared = paths[0] if paths else ()
    for path in paths:
        same = next((i for i, (a, b) in enumerate(zip(shared, path, strict=False)) if a != b), None)
        shared = shared[: min(len(shared), len(path))] if same is None else shared[:same]
    return shared


def _description(model: Model, coded: Coded) -> bytes:
    """What a decoder must know, as JSON: the tensors that are coded, or the same as such, and where they lie."""
    files = [_described_file(file, coded) for file in model.files]
    tensors = list(chain.from_iterable(_described_tensors(file, coded) for file in model.files))
    whole: dict[str, Any] = {"kind": model.kind, "root": coded.root}
    opaque = sorted({name for file in model.files for name in file.scan.opaque})
    whole = {key: value for key, value in (whole | {"opaque": opaque}).items() if value}
    return json.dumps(whole | {"tensors": tensors, "files": files}, separators=(",", ":")).encode()


def _described_tensors(file: File, coded: Coded) -> Iterator[dict[str, Any]]:
    """Tensors with their paths; ``name`` where they are coded, ``alias`` where their values are another's."""
    holes = coded.holes(file)
    starts = [view.start for view, _ in holes]
    for view in file.scan.views:
        if not view.path:
            continue
        entry: dict[str, Any] = {"path": view.path, "dtype": view.dtype, "shape": view.shape}
        name = coded.names.get(id(view))
        if name is not None:
            entry["name"] = name
            if view.order != tuple(range(len(view.shape))):
                entry["order"] = view.order
        elif holes and view.elements and not view.exact:
            place = bisect_left(starts, view.start + 1) - 1
            if place >= 0 and view.end <= holes[place][0].end:
                entry["alias"] = holes[place][1]
        if entry.keys() & {"name", "alias"}:  # the others are in the files
            yield entry


def _described_file(file: File, coded: Coded) -> dict[str, Any]:
    described = {
        "name": file.name,
        "holes": [[view.start, name] for view, name in coded.holes(file)],
        "checksums": [[c.start, c.end, c.places] for c in coded.checksums(file)],
        "zeros": [[start, end - start] for start, end in coded.zeros(file)],
    }
    return {key: value for key, value in described.items() if value}


def _exact(model: Model, coded: Coded, limits: Limits) -> dict[str, bytes]:
    """What is left of each file."""
    sizes = [len(file.data.view) - sum(end - start for start, end in coded.gaps(file)) for file in model.files]
    if sum(sizes) > limits.topology_bytes:
        raise UnsupportedError(
            "a topology of this size",
            f"{sum(sizes)} bytes must stay as they are, at most {limits.topology_bytes} are possible; a checkpoint "
            "for inference does not need what an optimizer keeps (--drop-optimizer, keep_optimizer=False)",
        )
    return {f"file/{i}": b"".join(_left(file, coded)) for i, file in enumerate(model.files)}


def _left(file: File, coded: Coded) -> Iterator[Buffer]:
    """The file without its gaps, and with zeros for the checksums that will have to be made anew."""
    wiped = ((place, place + 4, bytes(4)) for checksum in coded.checksums(file) for place in checksum.places)
    at = 0
    for start, end, instead in sorted([*((start, end, b"") for start, end in coded.gaps(file)), *wiped]):
        yield file.data.view[at:start]
        yield instead
        at = end
    yield file.data.view[at:]
