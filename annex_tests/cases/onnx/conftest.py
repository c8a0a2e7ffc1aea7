"""What the tests in this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from annex_tests.support.onnx_models import Read
from annex_tests.support.program import checked
from nnc_adapters.base import DEFAULTS, Options
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.nnr_model import SourceModel


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """What the adapter makes of a model."""

    def call(model: ModelProto, options: Options = DEFAULTS) -> SourceModel:
        onnx.save(model, tmp_path / "read.onnx")
        return OnnxAdapter().read(tmp_path / "read.onnx", options)

    return call


@pytest.fixture
def restored(tmp_path: Path) -> Callable[..., Path]:
    """Compress with the command line, verify, and restore: the file that comes back."""

    def call(source: Path | ModelProto) -> Path:
        if isinstance(source, ModelProto):
            onnx.save(source, tmp_path / "source.onnx")
            source = tmp_path / "source.onnx"
        coded, back = tmp_path / "coded.nnr", tmp_path / "restored" / "back.onnx"
        back.parent.mkdir()
        checked("compress", source, "-o", coded)
        checked("verify", source, coded)
        checked("decompress", coded, "-o", back)
        return back

    return call
