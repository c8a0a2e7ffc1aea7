"""What is needed for which kind of model, and what is said where it is absent."""

from __future__ import annotations

import sys

import pytest

from nnc_core.errors import MissingDependencyError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        ("model.keras", "h5py", "h5py"),
        ("model.h5", "h5py", "h5py"),
        ("export", "google_crc32c", "google-crc32c"),
        ("checkpoint", "google_crc32c", "google-crc32c"),
        ("module", "ml_dtypes", "ml_dtypes"),
    ],
)
def test_an_absent_package_is_named(saved, adapter, monkeypatch, kind, module, package):
    path = saved(kind)  # Keras needs the packages too
    monkeypatch.setitem(sys.modules, module, None)
    assert adapter.sniff(path)
    with pytest.raises(MissingDependencyError, match=package) as caught:
        dict(adapter.read(path).tensors)
    assert caught.value.extra == "tensorflow"


@pytest.mark.parametrize("kind", ["model.keras", "model.h5", "model.tflite"])
def test_files_are_restored_with_nothing_but_numpy(saved, adapter, monkeypatch, tmp_path, kind):
    model = adapter.read(saved(kind))
    tensors = dict(model.tensors)
    for module in ("h5py", "google_crc32c", "ml_dtypes"):
        monkeypatch.setitem(sys.modules, module, None)
    adapter.write(tensors, model.topology, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == saved(kind).read_bytes()


@pytest.mark.parametrize(
    ("kind", "suffix"), [("export", ""), ("checkpoint", ""), ("model.keras", ".keras"), ("model.tflite", ".tflite")]
)
def test_the_topology_tells_how_the_name_of_a_file_should_end(saved, adapter, kind, suffix):
    assert adapter.default_suffix(adapter.read(saved(kind)).topology) == suffix
