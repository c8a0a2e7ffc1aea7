"""Which suffix a converted model can have: that of its template's format."""

from __future__ import annotations

from pathlib import Path

from nnc_core.errors import ModelError

__all__ = ["BITSTREAMS", "check_suffix"]

BITSTREAMS = (".nnr", ".nnc", ".nctm")

_FORMATS = (
    frozenset({".pt", ".pth", ".th", ".bin", ".ckpt"}),
    frozenset({".h5", ".hdf5"}),
    *(
        frozenset({suffix})
        for suffix in (".safetensors", ".pt2", ".onnx", ".keras", ".tflite", ".nnef", ".tgz", ".zip")
    ),
)


def check_suffix(target: Path, template: Path) -> None:
    """`ModelError` where ``target`` is called like a format that ``template`` does not have."""
    wanted, given = target.suffix.lower(), template.suffix.lower()
    for formats in _FORMATS:
        if wanted in formats and given not in formats and wanted not in template.name.lower():
            form = given or "a folder"
            raise ModelError(
                f"the output has the format of the template ({form}), and cannot be called {wanted}; "
                f"call it *{given}, or give a template of that format",
                file=str(target),
            )
