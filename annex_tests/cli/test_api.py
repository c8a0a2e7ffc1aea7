"""Compressing and restoring files from Python."""

from __future__ import annotations

import io
from pathlib import Path

import onnx
import pytest

import nnc_adapters
import nnc_core


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
    assert report.bytes_before > 4 * report.weights - 1


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
