"""From an NNEF archive to a `SourceModel`: which tensors are coded, which are exact, which files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.nnef import archive, dat, private, syntax
from nnc_adapters.nnef.graph import Graph
from nnc_adapters.shared import exactness, remarks
from nnc_adapters.shared.lazy import LazyTensors
from nnc_adapters.shared.selection import Selection, fits
from nnc_adapters.shared.thrift import Candidate
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.records import dataclass
from nnc_core.tables.code_points import TopologyStorageFormat

DAT, NNR = ".dat", ".nnr"

# Smaller tensors cost less than their files, whatever their values: these have headers, and twice a name.
_FEW_BYTES = 2048
_FILE = 24  # bytes that a tensor file takes deflated besides its values


@dataclass(frozen=True, slots=True)
class _Variable:
    """A tensor of the archive; ``padding`` are bits after its last item that are not zero."""

    label: str
    file: str
    header: dat.Header
    load: Callable[[], NDArray[Any]]
    padding: bool = False

    @property
    def is_float(self) -> bool:
        """Whether its items are floating-point numbers."""
        return self.header.item_type == dat.ItemType.FLOAT


def file_stem(label: str) -> str:
    """The name of a variable's file, without its suffix; `ModelError` for a label that leads out of the archive."""
    try:
        return archive.safe_name(label.removeprefix("/"))
    except ModelError as error:
        raise ModelError(f"the label leads out of the archive: {error.message}", tensor=label) from None


def read(path: Path, options: Options, *, lossless: bool = False) -> SourceModel:
    """Read an archive as the ``options`` say.

    Tensors may be in ``<label>.dat`` or, as `NnefAdapter.embed` puts them, in ``<label>.nnr``; with ``lossless``
    those in ``<label>.dat`` are exact, or stay files.
    """
    try:
        return _read(path, options, lossless)
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error


def _read(path: Path, options: Options, lossless: bool) -> SourceModel:
    limits = options.limits
    files = archive.files_of(path, limits)
    text = _small(files, archive.GRAPH, limits)
    shapes = syntax.variables(text)
    found = {label: _variable(label, shape, files, limits) for label, shape in shapes.items()}
    variables = [variable for variable in found.values() if variable is not None]
    graph = Graph.read(text, shapes)
    reasons = _reasons(graph, variables)
    if lossless:
        reasons |= {v.label: "not coded in the archive" for v in variables if v.file.endswith(DAT)}
    selection = Selection(options)
    coded = {v.label for v in variables if v.label in options.chosen or _is_coded(v, reasons, selection)}
    # what is coded in the archive has no file that it could stay in
    others = [v for v in variables if v.label not in coded and not (options.only and v.file.endswith(DAT))]
    exact = {v.label for v in others if _fits(v) and _costs_less(v, selection)}
    must = {v.label for v in variables if v.label in options.chosen or v.file.endswith(NNR)}
    paying = selection.paying({v.label: _candidate(v, exact) for v in variables if v.label in (coded | exact) - must})
    coded, exact = coded & (must | paying), exact & (must | paying)
    tensors = [v for v in variables if v.label in coded | exact]
    topology, dropped = _topology(text, tensors, files, options)
    return SourceModel(
        LazyTensors({variable.label: variable.load for variable in tensors}),
        topology,
        ModelInfo(parameter_type={label: role for label, role in graph.roles.items() if label in coded}),
        {v.label: reasons.get(v.label, "few values") for v in tensors if v.label in exact and v.is_float},
        (
            *_remarks([label for label, variable in found.items() if variable is None], dropped),
            *remarks.bitstreams(sorted(files.keys() - {variable.file for variable in variables})),
        ),
    )


def _topology(text: bytes, tensors: list[_Variable], files: archive.Files, options: Options) -> tuple[Topology, int]:
    """The topology of an archive without these ``tensors``, and how many bytes of comments were dropped."""
    limits = options.limits
    quantization = _small(files, archive.QUANTIZATION, limits) if archive.QUANTIZATION in files else None
    before = len(text) + len(quantization or b"")
    if options.strip_debug:
        text = syntax.without_comments(text)
        quantization = None if quantization is None else syntax.without_comments(quantization)
    private = _private(tensors, files, limits)
    topology = Topology(TopologyStorageFormat.NNR_TPL_NNEF, text, quantization, private)
    return topology, before - len(text) - len(quantization or b"")


def _remarks(unknown: list[str], dropped: int) -> Iterator[str]:
    """What a person should know: what the codec does not look at, and how much was dropped."""
    if unknown:
        yield f"tensors with items of types that NNEF does not have are carried as they are: {', '.join(unknown[:3])}"
    if dropped:
        yield f"{dropped} bytes of comments were dropped"


def _reasons(graph: Graph, variables: list[_Variable]) -> dict[str, str]:
    """Why variables of floats must be exact: what operations do with them or, for those without a role, their names."""
    declared = {v.label: exactness.Declared(v.header.dtype.name, v.header.shape) for v in variables}
    named = exactness.reasons({label: each for label, each in declared.items() if not label.isdecimal()})
    unknown = {label: why for label, why in named.items() if graph.roles.get(label, "unspecified") == "unspecified"}
    return unknown | graph.reasons(frozenset(v.label for v in variables if not v.is_float))


def _small(files: archive.Files, name: str, limits: Limits) -> bytes:
    limits.check("topology_bytes", files[name].size, name)
    return bytes(files[name].data())


def _variable(label: str, shape: tuple[int, ...], files: archive.Files, limits: Limits) -> _Variable | None:
    """The tensor of a variable; None for items that only the maker of a certain software can read."""
    stem = file_stem(label)
    present = [stem + suffix for suffix in (DAT, NNR) if stem + suffix in files]
    if len(present) != 1:
        fault = f"both {stem + DAT} and {stem + NNR}" if present else f"no file {stem + DAT}"
        raise ModelError(f"the archive has {fault}", tensor=label)
    found = (_from_dat if present[0].endswith(DAT) else _from_nnr)(label, shape, present[0], files[present[0]], limits)
    if found is not None and found.header.shape != shape:
        message = f"{found.file} has shape {list(found.header.shape)}, graph.nnef says {list(shape)}"
        raise ModelError(message, tensor=label)
    return found


def _from_dat(label: str, shape: tuple[int, ...], name: str, file: archive.File, limits: Limits) -> _Variable | None:
    try:
        header = dat.Header.parse(file.read(min(file.size, dat.HEADER_SIZE)), file.size)
    except ModelError as error:
        raise ModelError(error.message, tensor=label) from error
    except UnsupportedError:
        return None
    unused = 8 * header.data_length - header.elements * header.bits_per_item
    padding = bool(unused and file.data()[-1] & ((1 << unused) - 1))
    return _Variable(label, name, header, partial(_load, header, file), padding)


def _load(header: dat.Header, file: archive.File) -> NDArray[Any]:
    return dat.load(header, file.data()[dat.HEADER_SIZE :])


def _from_nnr(label: str, shape: tuple[int, ...], name: str, file: archive.File, limits: Limits) -> _Variable:
    bitstream = nnc_core.NnrFile(file.data(), limits)
    if list(bitstream) != [label]:
        raise ModelError(f"{name} holds the tensors {list(bitstream)}", tensor=label)
    topology = bitstream.topology
    headers = private.unpack(topology.private if topology else None, {label: shape}, limits).headers
    info = bitstream.tensors[label]
    coded_shape = () if shape == () and info.shape == (1,) else info.shape
    header = headers.get(label) or dat.default(coded_shape, np.dtype(info.dtype))
    return _Variable(label, name, header, partial(_decode, label, file, limits, header))


def _decode(label: str, file: archive.File, limits: Limits, header: dat.Header) -> NDArray[Any]:
    array = nnc_core.NnrFile(file.data(), limits).decode(label).reshape(header.shape)
    return dat.load(header, dat.dump(header, array))


def _is_coded(variable: _Variable, reasons: Mapping[str, str], selection: Selection) -> bool:
    """Whether a tensor of floats may lose precision."""
    name, elements = variable.header.dtype.name, variable.header.elements
    return variable.is_float and variable.label not in reasons and selection.takes(name, elements, variable.load)


def _candidate(variable: _Variable, exact: Collection[str]) -> Candidate:
    label, header = variable.label, variable.header
    return Candidate(label, header.dtype.name, header.shape, variable.load, label in exact, described=-_FILE)


def _costs_less(variable: _Variable, selection: Selection) -> bool:
    """Whether an exact tensor takes fewer bytes than its file would in the topology."""
    stays = variable.file.endswith(NNR) or variable.header.data_length < _FEW_BYTES
    return stays or selection.costs_less(variable.load, exact=True)


def _fits(variable: _Variable) -> bool:
    """Whether NNR can carry the tensor without any loss."""
    if variable.file.endswith(NNR):
        return True
    if variable.padding or not variable.header.elements:
        return False
    if not variable.is_float:
        return fits(variable.header.dtype.name, variable.load)
    array = variable.load()
    with np.errstate(over="ignore", invalid="ignore"):
        back = array.astype(np.float32).astype(array.dtype)
    # bit by bit: there are many NaN
    return dat.dump(variable.header, back) == dat.dump(variable.header, array)


def _private(tensors: list[_Variable], files: archive.Files, limits: Limits) -> bytes | None:
    """What is needed besides the graph and the ``tensors`` that are carried as such."""
    known = {archive.GRAPH, archive.QUANTIZATION, *(variable.file for variable in tensors)}
    others = {name: file for name, file in files.items() if name not in known}
    limits.check("topology_bytes", sum(file.size for file in others.values()), "files that stay as they are")
    kept = {name: bytes(file.data()) for name, file in others.items()}
    return private.pack(private.Private({v.label: v.header for v in tensors}, kept))
