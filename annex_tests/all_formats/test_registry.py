from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nnc_adapters import registry
from nnc_adapters.base import DEFAULTS, Adapter
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.errors import MissingDependencyError, ModelError, UnsupportedError
from nnc_core.tables.code_points import TopologyStorageFormat

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh():
    registry.adapters.cache_clear()
    yield
    registry.adapters.cache_clear()


@pytest.fixture
def model(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", 1, [20])],
        [numpy_helper.from_array(np.ones(20, np.float32), "w")],
    )
    path = tmp_path / "model.bin"
    onnx.save_model(helper.make_model(graph), path)
    return path


def test_every_adapter_keeps_the_contract():
    for adapter in registry.adapters():
        assert isinstance(adapter, Adapter)
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in adapter.suffixes)


def test_the_adapters_of_the_package_are_those_it_registers():
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split(f'[project.entry-points."{registry.GROUP}"]')[1].split("[")[0]
    declared = dict(line.replace('"', "").split(" = ") for line in section.strip().splitlines())
    assert declared == registry.OWN


def test_content_is_believed_before_the_suffix(model):
    assert isinstance(registry.find(model), OnnxAdapter)


def test_a_file_that_is_yet_to_be_written_is_known_by_its_suffix(tmp_path):
    assert isinstance(registry.find(tmp_path / "New.ONNX"), OnnxAdapter)


def test_a_damaged_file_is_known_by_its_suffix(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"damaged")
    assert isinstance(registry.find(tmp_path / "m.onnx"), OnnxAdapter)


def test_an_unknown_file_is_refused(tmp_path):
    (tmp_path / "m.txt").write_bytes(b"\0\1\2")
    with pytest.raises(ModelError, match=r"m\.txt.*onnx"):
        registry.find(tmp_path / "m.txt")


def test_a_missing_file_without_known_suffix_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.txt"):
        registry.find(tmp_path / "m.txt")


def test_a_folder_is_not_an_onnx_model(tmp_path):
    with pytest.raises(ModelError):
        registry.find(tmp_path)


def test_a_topology_finds_its_adapter():
    assert isinstance(registry.adapter(TopologyStorageFormat.NNR_TPL_ONNX), OnnxAdapter)


@pytest.mark.parametrize("storage_format", [TopologyStorageFormat.NNR_TPL_REFLIST, 200])
def test_a_topology_without_adapter_is_refused(storage_format):
    with pytest.raises(UnsupportedError, match=str(int(storage_format))):
        registry.adapter(storage_format)


class Foreign(Adapter):
    """Knows everything."""

    name = "foreign"
    suffixes = (".bin",)
    topology_storage_format = 200

    def sniff(self, path):
        return True

    def read(self, path, options=DEFAULTS):
        raise NotImplementedError

    def write(self, tensors, topology, path, options=DEFAULTS, *, force=False):
        raise NotImplementedError


@pytest.mark.usefixtures("fresh")
def test_foreign_adapters_are_found_by_their_entry_points(monkeypatch, model, tmp_path):
    point = EntryPoint("foreign", f"{__name__}:Foreign", registry.GROUP)
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Foreign", Foreign, raising=False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert registry.adapter(200).name == "foreign"
    # both know the content, the suffix decides
    assert registry.find(model).name == "foreign"
    assert registry.find(model.rename(tmp_path / "model.onnx")).name == "onnx"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("place", ["no.such:Thing", "pathlib:Path", "nnc_adapters.base:Adapter"])
def test_a_broken_foreign_adapter_does_not_take_the_others_with_it(monkeypatch, model, place):
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("broken", place, group)])
    with pytest.warns(UserWarning, match="broken"):
        assert isinstance(registry.find(model), OnnxAdapter)


def test_importing_and_sniffing_leave_the_framework_alone(model):
    code = (
        "import sys, nnc_adapters.onnx, nnc_adapters.registry as r;"
        f"r.find({str(model)!r}); sys.exit('onnx' in sys.modules)"
    )
    path = [str(ROOT), str(ROOT / "adapters"), *filter(None, sys.path)]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], check=True)


@pytest.mark.parametrize("package", ["onnx", "ml_dtypes"])
def test_a_missing_package_is_named(monkeypatch, model, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"nnc-suite\[onnx\]") as caught:
        OnnxAdapter().read(model)
    assert caught.value.package == package
