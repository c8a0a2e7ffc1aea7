"""What is missing is named by the feature that needs it, and by what brings it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from annex_tests.support.program import Nnc

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with nothing but what the package requires."""
    for package in ("ml_dtypes", "torch", "safetensors", "onnx", "h5py"):
        monkeypatch.setitem(sys.modules, package, None)


def safetensors(path: Path, dtype: str, width: int) -> Path:
    header = json.dumps({"w": {"dtype": dtype, "shape": [32, 32], "data_offsets": [0, 1024 * width]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(1, 65)) * (16 * width))
    return path


@pytest.mark.usefixtures("bare")
def test_safetensors_need_nothing_more(nnc: Nnc, tmp_path: Path) -> None:
    path = safetensors(tmp_path / "half.safetensors", "F16", 2)
    result = nnc("compress", path, "--lossless")
    assert result.exit_code == 0, result.output
    assert nnc("decompress", tmp_path / "half.nnr", "-o", tmp_path / "again.safetensors").exit_code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("bare")
def test_the_message_names_feature_and_extra(nnc: Nnc, tmp_path: Path) -> None:
    result = nnc("compress", safetensors(tmp_path / "brain.safetensors", "BF16", 2))
    assert result.exit_code == 7
    assert "the data type bfloat16 needs" in result.stderr
    assert "pip install 'nnc-suite[bfloat16]'" in result.stderr


def test_every_extra_that_the_code_and_documents_name_exists() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("adapters/**/*.py")]
    named = {name for path in texts for name in re.findall(r"nnc-suite\[([a-z0-9,]+)\]", path.read_text("utf-8"))}
    assert {"onnx", "safetensors"} <= named
    assert {extra for each in named for extra in each.split(",")} <= EXTRAS.keys()


def test_every_extra_is_described() -> None:
    text = (ROOT / "docs" / "formats.md").read_text("utf-8").partition("## What to install")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z0-9]+)`", text)) >= EXTRAS.keys() - {"dev"}
