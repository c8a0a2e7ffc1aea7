"""How a topology names its weights: tensors without data that refer to a file which is not there.

``data_location`` is EXTERNAL and the location is ``nnr``; the ``topology_elem_id`` is the tensor's name unless a
property of the tensor says otherwise. Another property says that it is the copy of a tensor in another place, with
bytes of its own: ``equal``, or ``transposed``. Without it, tensors of one identifier share their bytes.
"""

from __future__ import annotations

from onnx import TensorProto

LOCATION = "nnr"
_ID = "nnr.topology_elem_id"
_COPY = "nnr.copy"
_DATA = (
    "raw_data",
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "external_data",
    "data_location",
)


def clear_data(tensor: TensorProto) -> None:
    """Remove the values and where they are."""
    for name in _DATA:
        tensor.ClearField(name)


def make(tensor: TensorProto, topology_elem_id: str, copy: str = "") -> None:
    """Turn ``tensor`` into a stub of this identifier, perhaps one that is a copy."""
    clear_data(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=LOCATION)
    for key, value, usual in ((_ID, topology_elem_id, tensor.name), (_COPY, copy, "")):
        if value != usual or any(p.key == key for p in tensor.metadata_props):
            tensor.metadata_props.add(key=key, value=value)


def is_stub(tensor: TensorProto) -> bool:
    """Whether `make` has been here."""
    locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return tensor.data_location == TensorProto.EXTERNAL and locations == [LOCATION]


def undo(tensor: TensorProto) -> tuple[str, str]:
    """Turn a stub into a tensor that only lacks its values; returns the identifier, and in what way it is a copy."""
    clear_data(tensor)
    return _taken(tensor, _ID, tensor.name), _taken(tensor, _COPY, "")


def _taken(tensor: TensorProto, key: str, usual: str) -> str:
    # the last one is ours: `make` adds it behind what the model had
    positions = [i for i, p in enumerate(tensor.metadata_props) if p.key == key]
    return str(tensor.metadata_props.pop(positions[-1]).value) if positions else usual
