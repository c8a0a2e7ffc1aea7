"""SavedModels without what is there for people only: where operations come from, and stack traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nnc_adapters.shared import protobuf
from nnc_adapters.tensorflow import fingerprint
from nnc_adapters.tensorflow.content import Content, Nameless
from nnc_adapters.tensorflow.manifest import GRAPH

__all__ = ["without_debug"]

_STACK_TRACES = "debug/saved_model_debug_info.pb"
_Fields = Mapping[int, "_Fields | None"]
# From a SavedModel over meta graphs, graphs, the library and its functions to the debug information of nodes.
_NODE: _Fields = {6: None}
_DEBUG: _Fields = {2: {2: {1: _NODE, 2: {1: {3: _NODE}}}}}


def without_debug(opened: Mapping[str, Content]) -> tuple[dict[str, Content], str]:
    """The files of a SavedModel without debug information, and what was left behind, in a sentence if there was any."""
    files = dict(opened)
    traces = files.pop(_STACK_TRACES, None)
    dropped = 0 if traces is None else traces.size
    if GRAPH in files:
        whole = files[GRAPH].raw().data
        try:
            smaller = b"".join(_without(whole, 0, len(whole), _DEBUG))
        except protobuf.WireError:
            return dict(opened), ""
        if len(smaller) < len(whole):
            dropped += len(whole) - len(smaller)
            files[GRAPH] = _stored(smaller)
            files = {name: _true(name, content) for name, content in files.items()}
    return files, f"{dropped} bytes are left behind that say where operations come from" if dropped else ""


def _true(name: str, content: Content) -> Content:
    """A fingerprint that says nothing of the graph as it was."""
    if name != fingerprint.FILE:
        return content
    return _stored(fingerprint.refreshed(content.raw().tobytes(), None, True))


def _stored(data: bytes) -> Content:
    file = Nameless()
    file.write(data)
    file.flush()
    return Content(file, 0, len(data))


def _without(data: memoryview, start: int, end: int, fields: _Fields) -> Iterator[bytes | memoryview]:
    """A message without those of its ``fields`` that lead to nothing; what the others lead to is looked through."""
    for field in protobuf.fields(data, start, end):
        if field.wire_type != protobuf.LENGTH_DELIMITED or field.number not in fields:
            yield data[field.start : field.end]
        elif (inner := fields[field.number]) is not None:
            content = b"".join(_without(data, field.value, field.end, inner))
            if len(content) == field.end - field.value:
                yield data[field.start : field.end]
            else:
                yield protobuf.key(field.number, len(content))
                yield content
