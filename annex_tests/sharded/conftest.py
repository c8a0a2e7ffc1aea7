"""Small models of several files, made without any framework, and what is in a folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
_TYPES = {"float32": "F32", "int8": "I8", "uint16": "BF16"}  # numpy has no bfloat16


def write_safetensors(path: Path, tensors: Tensors) -> None:
    header, at = {}, 0
    for name, array in tensors.items():
        kind = _TYPES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def layer(number: int, scale: float = 0.02) -> Tensors:
    rng = np.random.default_rng(number)
    halves = (rng.standard_normal((32, 32)) * scale).astype(np.float32).view(np.uint32) >> 16
    name = f"model.layers.{number}"
    return {
        f"{name}.weight": (rng.standard_normal((48, 40)) * scale).astype(np.float32),
        f"{name}.norm.weight": rng.standard_normal(8).astype(np.float32),
        f"{name}.bias": rng.standard_normal(48).astype(np.float32),
        f"{name}.proj.weight": halves.astype(np.uint16),
    }


def write_checkpoint(folder: Path, shards: list[Tensors]) -> Path:
    folder.mkdir()
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder as a hub has it; the scales of its four shards differ, so that what they share matters."""
    return write_checkpoint(tmp_path / "llama", [layer(number, 0.01 * 3**number) for number in range(4)])
