"""What an ONNX model says to people only: documentation, and metadata of its parts, such as stack traces."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from onnx import ModelProto

__all__ = ["strip"]


def strip(model: ModelProto) -> int:
    """Remove all of it but the metadata of the model itself, which programs may use; the number of bytes less."""
    before: int = model.ByteSize()
    _strip(model)
    return before - int(model.ByteSize())


def _strip(message: Any) -> None:
    message.ClearField("doc_string")
    for field, value in message.ListFields():
        if field.name == "metadata_props" and not isinstance(message, ModelProto):
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                if "doc_string" in inner.DESCRIPTOR.fields_by_name:
                    _strip(inner)
