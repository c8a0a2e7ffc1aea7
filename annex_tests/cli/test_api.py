"""Compressing and restoring files from Python."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters.base import Options, SourceModel
from nnc_adapters.onnx import OnnxAdapter
from nnc_core import Limits


def test_without_weights_there_are_no_bits_for_each(model: Path) -> None:
    content = onnx.load(model)
    del content.graph.initializer[:]
    onnx.save(content, model)
    report = nnc_adapters.compress(model)
    assert (report.tensors, report.weights, report.bits_per_weight) == (0, 0, None)


def test_types_are_for_users_too() -> None:
    for package in (nnc_core, nnc_adapters):
        assert Path(package.__file__).with_name("py.typed").is_file()


def test_the_report_describes_the_file(model: Path) -> None:
    report = nnc_adapters.compress(model)
    size = model.with_suffix(".nnr").stat().st_size
    assert (report.bytes_before, report.bytes_after) == (model.stat().st_size, size)
    weights = [array.size for array in nnc_core.decode(model.with_suffix(".nnr").read_bytes()).values()]
    assert (report.tensors, report.weights) == (len(weights), sum(weights))
    assert report.percent == pytest.approx(100 * size / report.bytes_before)


def test_weights_outside_the_model_file_count_as_part_of_it(model: Path) -> None:
    apart = model.with_name("apart.onnx")
    onnx.save(onnx.load(model), apart, save_as_external_data=True, size_threshold=0)
    assert apart.stat().st_size < 10_000
    report = nnc_adapters.compress(apart)
    assert report.bytes_before == pytest.approx(model.stat().st_size, rel=0.01)


def test_weights_of_an_archive_count_as_they_are_on_disk(tmp_path: Path) -> None:
    nnef = pytest.importorskip("nnef", reason="nnef is not installed")
    folder, archive = tmp_path / "net", tmp_path / "net.nnef.tgz"
    folder.mkdir()
    label = "w = variable<scalar>(shape = [64, 64], label = 'w'); y = add(x, w);"
    (folder / "graph.nnef").write_text(
        f"version 1.0;\ngraph net(x) -> (y)\n{{ x = external<scalar>(shape = [64, 64]); {label} }}\n"
    )
    with (folder / "w.dat").open("wb") as stream:
        nnef.write_tensor(stream, np.tile(np.float32([0.5, 0.25]), 2048).reshape(64, 64))
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder / "graph.nnef", "graph.nnef")
        packed.add(folder / "w.dat", "w.dat")
    assert nnc_adapters.compress(archive).bytes_before == archive.stat().st_size < 4 * 4096
    assert nnc_adapters.compress(folder, tmp_path / "folder.nnr").bytes_before > 4 * 4096


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.onnx", "model.nnr"),
        ("UPPER.ONNX", "UPPER.nnr"),
        ("a.b.onnx", "a.b.nnr"),
        ("model", "model.nnr"),
        ("model.v1", "model.nnr"),
        (".onnx", ".onnx.nnr"),
    ],
)
def test_the_name_of_the_bitstream_is_that_of_the_model(model: Path, name: str, expected: str) -> None:
    nnc_adapters.compress(model.rename(model.with_name(name)))
    assert {path.name for path in model.parent.iterdir()} == {name, expected}


def test_the_name_of_a_folder_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model-1.5"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    nnc_adapters.compress(folder)
    monkeypatch.chdir(folder)
    assert (tmp_path / "model-1.5.nnr").exists()
    with pytest.raises(FileExistsError, match=r"model-1\.5\.nnr"):
        nnc_adapters.compress(".")


def test_what_is_asked_for_reaches_the_adapters(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []
    read = OnnxAdapter.read

    def watching(self: OnnxAdapter, path: Path, options: Options) -> SourceModel:
        seen.append(options)
        return read(self, path, options)

    monkeypatch.setattr(OnnxAdapter, "read", watching)
    loose = Limits(tensor_elements=1 << 40)
    nnc_adapters.compress(model, limits=loose, keep_optimizer=False)
    assert seen == [Options(loose.following(model.stat().st_size), keep_optimizer=False)]


def test_a_binary_file_object_gets_the_same_bytes(model: Path, bitstream: Path) -> None:
    stream = io.BytesIO()
    report = nnc_adapters.compress(model, stream)
    assert stream.getvalue() == bitstream.read_bytes()
    assert report.bytes_after == len(stream.getvalue())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_show_in_the_result(model: Path, bitstream: Path, threads: int) -> None:
    nnc_adapters.compress(model, threads=threads)
    assert model.with_suffix(".nnr").read_bytes() == bitstream.read_bytes()


def test_progress_counts_up_to_the_number_of_tensors(model: Path, bitstream: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = nnc_adapters.compress(model, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (report.tensors, report.tensors)
    assert calls == sorted(calls)
    calls.clear()
    nnc_adapters.decompress(bitstream, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (report.tensors, report.tensors)


def test_restored_models_compress_to_the_same_weights(model: Path, bitstream: Path) -> None:
    restored = nnc_adapters.decompress(bitstream).target
    again = nnc_adapters.decompress(bitstream, bitstream.with_name("again.onnx")).target
    assert restored.read_bytes() == again.read_bytes()
    assert onnx.load(restored).graph.node == onnx.load(model).graph.node
