"""A model to work on, its bitstream, and the program."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nnc_adapters

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compressed") / "digits.nnr"
    nnc_adapters.compress(DIGITS, target)
    return target


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the digits model in a folder of its own."""
    return Path(shutil.copy(DIGITS, tmp_path / "model.onnx"))


@pytest.fixture
def bitstream(tmp_path: Path, compressed: Path) -> Path:
    """A copy of its bitstream in a folder of its own."""
    return Path(shutil.copy(compressed, tmp_path / "coded.nnr"))
