"""From an ONNX file to a `SourceModel`: which tensors are coded, their names, and the topology without them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from nnc_adapters.base import EVERYTHING, Options
from nnc_adapters.onnx import copies, debugging, roles, stubs, values
from nnc_adapters.onnx.dataflow import Dataflow, Value
from nnc_adapters.onnx.scopes import Site, scopes, sites
from nnc_adapters.onnx.sensitivity import sensitivity, takes_as_argument
from nnc_adapters.shared import exactness, protobuf
from nnc_adapters.shared.lazy import LazyTensors
from nnc_adapters.shared.names import expressible, free
from nnc_adapters.shared.selection import Selection
from nnc_adapters.shared.sensitivity import Sensitivity
from nnc_adapters.shared.thrift import Candidate
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.records import dataclass
from nnc_core.stored import Bytes, StoredBytes
from nnc_core.tables.code_points import TopologyStorageFormat

# Below this size raw data cost less where they are than as a reference.
_LIFTED_BYTES = 1024
_WORTH_MENTIONING = 1024
_TOPOLOGY_BYTES = (1 << 31) - 1
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14


def read(path: Path, options: Options) -> SourceModel:
    """Read a model as the ``options`` say."""
    try:
        return _read(path, options)
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error


def _read(path: Path, options: Options) -> SourceModel:
    limits = options.limits
    folder = values.Folder(path, limits)
    model = parsed(_without_weights(folder.content))
    dropped = debugging.strip(model) if options.strip_debug else 0
    found = scopes(model, limits)
    places = [site for scope in found for site in sites(scope)]
    for site in places:
        values.check(site.tensor, folder)
    flow = Dataflow(found)
    meant = sensitivity(flow, places, folder)
    groups = tied_together(topology_elem_ids(places, limits), folder)
    known = copies.copies({name: tied[0] for name, tied in groups.items()}, folder) if _sees_copies(options) else {}
    tensors = list(_tensors(groups, known, meant))
    named = _named(tensors, flow)
    coded = _coded(tensors, named, flow, folder, options)
    info = roles.model_info({name: tensor.sites for name, tensor in coded.items()}, flow)
    return SourceModel(
        LazyTensors({name: _loader(tensor.proto, folder) for name, tensor in coded.items()}),
        _topology(model, places, coded, folder),
        info,
        {name: why for name, tensor in coded.items() if (why := tensor.exact or named.get(name)) is not None},
        tuple(_remarks(tensors, dropped)),
    )


def tensors(path: Path, options: Options) -> LazyTensors:
    """All tensors that have arrays, by name: each of those that share their bytes."""
    folder = values.Folder(path, options.limits)
    places = [
        site for scope in scopes(parsed(_without_weights(folder.content)), options.limits) for site in sites(scope)
    ]
    for site in places:
        values.check(site.tensor, folder)
    named = topology_elem_ids(places, options.limits)
    arrays = {name: site.tensor for name, site in named.items() if site.tensor.data_type in values.WHOLE_BYTES}
    return LazyTensors({name: _loader(tensor, folder) for name, tensor in arrays.items()})


def _remarks(tensors: list[_Tensor], dropped: int) -> Iterator[str]:
    """What a person should know: how much was dropped, and what numbers the codec does not look at."""
    if dropped:
        yield f"{dropped} bytes of documentation and metadata of nodes were dropped"
    unknown = [t.proto for t in tensors if t.proto.data_type in values.SHORT_FLOATS]
    size = sum(values.byte_size(proto) or 0 for proto in unknown)
    if size >= _WORTH_MENTIONING:
        yield f"{len(unknown)} tensors of 8 bits or less with a fraction are carried as they are, {size} bytes"


def _sees_copies(options: Options) -> bool:
    """Whether tensors of equal values count as one: not where each is asked for by its name."""
    return not options.only and not options.all_floats and options.chosen is not EVERYTHING


def _tensors(
    groups: Mapping[str, list[Site]], known: Mapping[str, tuple[str, copies.Copy]], meant: Sensitivity
) -> Iterator[_Tensor]:
    """The tensors, without those that are copies of others."""
    again: dict[str, dict[Site, copies.Copy]] = {name: {} for name in groups}
    for name, (first, way) in known.items():
        again[first] |= dict.fromkeys(groups[name], way)
    for name, tied in groups.items():
        if name not in known:
            yield _Tensor(name, tied, again[name], _reason([*tied, *again[name]], meant))


def _coded(
    tensors: list[_Tensor], named: Mapping[str, str], flow: Dataflow, folder: values.Folder, options: Options
) -> dict[str, _Tensor]:
    selection = Selection(options)
    chosen = {tensor.name for tensor in tensors if _is_chosen(tensor, options)}
    others = [t for t in tensors if t.name not in chosen and is_coded(t, flow, folder, selection)]
    paying = selection.paying({t.name: _candidate(t, folder, t.exact is not None or t.name in named) for t in others})
    return {tensor.name: tensor for tensor in tensors if tensor.name in chosen | paying}


def _candidate(tensor: _Tensor, folder: values.Folder, exact: bool) -> Candidate:
    proto, load = tensor.proto, functools.partial(values.load, tensor.proto, folder)
    dtype = values.dtype(proto.data_type).name
    return Candidate(tensor.name, dtype, tuple(proto.dims), load, exact, described=0)


def _is_chosen(tensor: _Tensor, options: Options) -> bool:
    return tensor.name in options.chosen and tensor.proto.data_type in values.WHOLE_BYTES


def _named(tensors: list[_Tensor], flow: Dataflow) -> dict[str, str]:
    """Why tensors without a role must be exact, by their names."""
    numbers = [t for t in tensors if t.proto.data_type != TensorProto.INT64 and not t.name.isdecimal()]
    found = exactness.reasons({t.name: _declared(t.proto) for t in numbers})
    info = roles.model_info({t.name: t.sites for t in tensors if t.name in found}, flow)
    known = info.get("parameter_type", {})
    return {name: why for name, why in found.items() if known.get(name, "unspecified") == "unspecified"}


def _declared(tensor: TensorProto) -> exactness.Declared:
    numbers = tensor.data_type in values.FLOATS | values.INTEGERS
    return exactness.Declared(values.dtype(tensor.data_type).name if numbers else "other", tuple(tensor.dims))


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor under its identifier, in all places that share its bytes, and where else there are ``copies`` of it.

    ``exact`` is why it must not change.
    """

    name: str
    sites: list[Site]
    copies: Mapping[Site, copies.Copy]
    exact: str | None

    @property
    def proto(self) -> TensorProto:
        """The first of the places."""
        return self.sites[0].tensor


def parsed(data: bytes) -> ModelProto:
    """The model that ``data`` serialize; `ModelError` where they do not."""
    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError(f"not an ONNX model: {error}") from error
    if not model.HasField("graph"):
        raise ModelError("not an ONNX model: it has no graph")
    _check_text(model)
    return model


def _check_text(message: Any) -> None:
    """`ModelError` for text that is not UTF-8, which the package would give as bytes where strings are expected."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            if bytes in map(type, [value] if isinstance(value, (str, bytes)) else value):
                raise ModelError(f"not an ONNX model: {field.full_name} is not UTF-8")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _check_text(inner)


def _without_weights(path: Path) -> bytes:
    """The model with references to its own file where ``raw_data`` were."""
    try:
        data = StoredBytes(path)
        rewriter = protobuf.Rewriter(
            data,
            TensorProto.DESCRIPTOR.full_name,
            lambda start, end: _lifted(data, start, end),
            lambda start, end: end - start >= _LIFTED_BYTES,
        )
        return b"".join(p for p in rewriter.rewrite(ModelProto.DESCRIPTOR) if not isinstance(p, protobuf.Hole))
    except ValueError as error:
        raise ModelError(f"not an ONNX model: {error}") from error


def _lifted(data: Bytes, start: int, end: int) -> list[protobuf.Piece] | None:
    if end - start < _LIFTED_BYTES:
        return None
    found = list(protobuf.fields(data, start, end))
    raw = [field for field in found if (field.number, field.wire_type) == (_RAW_DATA, protobuf.LENGTH_DELIMITED)]
    elsewhere = any(field.number in (_EXTERNAL_DATA, _DATA_LOCATION) for field in found)
    if len(raw) != 1 or elsewhere or raw[0].end - raw[0].value < _LIFTED_BYTES:
        return None
    reference = TensorProto(data_location=TensorProto.EXTERNAL)
    span = {"location": values.ITSELF, "offset": raw[0].value, "length": raw[0].end - raw[0].value}
    for key, value in span.items():
        reference.external_data.add(key=key, value=str(value))
    return [data[start : raw[0].start], data[raw[0].end : end], reference.SerializeToString()]


def topology_elem_ids(places: Iterable[Site], limits: Limits) -> dict[str, Site]:
    """An identifier for every tensor that nodes can name, in model order.

    It is the name in its graph. Names that occur in several graphs are preceded by the path to the graph (nothing for
    the main graph), and numbered where that is not enough.
    """
    named = [site for site in places if site.name]
    plain = Counter(site.name for site in named)
    taken = Counter(name for name, times in plain.items() if times == 1)
    found: dict[str, Site] = {}
    for index, site in enumerate(named):
        name = site.name
        if plain[name] > 1:
            name = free(f"{site.scope.path}/{name}" if site.scope.path else name, taken)
        if not expressible(name, limits):
            name = free(f"tensor{index}", taken)
        found[name] = site
    return found


def tied_together(names: Mapping[str, Site], folder: values.Folder) -> dict[str, list[Site]]:
    """The places that each identifier stands for: those whose values are the same bytes of a file share the first."""
    found: dict[str, list[Site]] = {}
    first: dict[object, str] = {}
    for name, site in names.items():
        tensor = site.tensor
        ties = values.is_external(tensor) and site.scope.carried and bool(values.count(tensor))
        key = (folder.span(tensor), tensor.data_type) if ties else site
        found.setdefault(first.setdefault(key, name), []).append(site)
    return found


def is_coded(tensor: _Tensor, flow: Dataflow, folder: values.Folder, selection: Selection) -> bool:
    """Whether a tensor leaves the topology: numbers, enough of them, and no arguments of operations."""
    proto, kind = tensor.proto, tensor.proto.data_type
    if not tensor.sites[0].scope.carried or kind not in values.FLOATS | values.INTEGERS:
        return False
    if kind in values.FLOATS and takes_as_argument(flow, [*tensor.sites, *tensor.copies]):
        return False
    load = functools.partial(values.load, proto, folder)
    return selection.takes(values.dtype(kind).name, values.count(proto), load, exact=bool(tensor.exact))


def _reason(sites: Iterable[Site], sensitivity: Sensitivity) -> str | None:
    """Why a tensor in these places must be exact; None where it may change, or has no fractions."""
    floats = (Value(site.scope, site.name) for site in sites if site.tensor.data_type in values.FLOATS)
    return next((reason for value in floats if (reason := sensitivity.reason(value)) is not None), None)


def _loader(tensor: TensorProto, folder: values.Folder) -> functools.partial[NDArray[Any]]:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return functools.partial(values.load, copy, folder)


def _topology(model: ModelProto, places: list[Site], coded: Mapping[str, _Tensor], folder: values.Folder) -> Topology:
    stubs_of = {site: (tensor.name, "") for tensor in coded.values() for site in tensor.sites}
    stubs_of |= {site: (tensor.name, way) for tensor in coded.values() for site, way in tensor.copies.items()}
    exact = [site.tensor for site in places if site not in stubs_of and values.is_external(site.tensor)]
    for site, (name, way) in stubs_of.items():
        stubs.make(site.tensor, name, way)
    if model.ByteSize() + sum(folder.span(tensor).size for tensor in exact) > _TOPOLOGY_BYTES:
        raise UnsupportedError("a topology over 2 GiB")
    for tensor in exact:
        data = folder.span(tensor).bytes().tobytes()
        stubs.clear_data(tensor)
        tensor.raw_data = data
    try:
        return Topology(TopologyStorageFormat.NNR_TPL_ONNX, model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise UnsupportedError("a topology over 2 GiB") from error
