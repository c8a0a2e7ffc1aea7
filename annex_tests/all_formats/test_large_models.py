"""Models of billions of weights: read by their headers, within the limits that nobody has to set."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from nnc_adapters import registry
from nnc_adapters.base import Options
from nnc_adapters.shared.files import size_of
from nnc_core import Limits

LAYERS, ROWS, COLUMNS = 13, 1 << 15, 1 << 14


@pytest.fixture
def seven_billion(tmp_path: Path) -> Path:
    """A file of safetensors that takes no room on the disk but for its header."""
    step = 2 * ROWS * COLUMNS
    header = {
        f"layers.{k}.weight": {"dtype": "BF16", "shape": [ROWS, COLUMNS], "data_offsets": [k * step, (k + 1) * step]}
        for k in range(LAYERS)
    }
    text = json.dumps(header).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        try:
            file.truncate(8 + len(text) + LAYERS * step)
        except OSError:
            pytest.skip("the file system has no room for a file of zeros of this size")
    if os.stat(path).st_blocks * 512 > 1 << 20:
        pytest.skip("the file system stores zeros")
    return path


def test_a_model_of_seven_billion_weights_is_read_by_its_header(seven_billion: Path) -> None:
    adapter = registry.find(seven_billion)
    tracemalloc.start()
    try:
        model = adapter.read(seven_billion, Options(Limits().following(size_of(seven_billion))))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(model.tensors) == LAYERS
    assert LAYERS * ROWS * COLUMNS > 6.9e9
    assert most < 16 << 20
    assert model.topology is not None
    assert len(model.topology.data) < 1 << 16


def test_what_it_is_compressed_to_is_within_the_limits_of_a_reader() -> None:
    weights = LAYERS * ROWS * COLUMNS
    for bits in (2, 4, 7):
        bounds = Limits().following(weights * bits // 8)
        bounds.check("decoded_bytes", 4 * weights)
        bounds.check("tensor_elements", ROWS * COLUMNS)
        bounds.check("units", LAYERS + 3)
