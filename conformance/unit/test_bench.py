"""The benchmark runs, and its page shows what it found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Semaphore

import numpy as np
import pytest

import nnc_core
from conformance.bench import jobs as bench_jobs
from conformance.bench import report as bench_report
from conformance.bench import sampling
from conformance.bench import speed as bench
from conformance.bench import worker as bench_worker
from nnc_core import CodingParameters


def test_a_workload_is_measured_in_both_directions(tmp_path: Path) -> None:
    encode, decode = bench.run(bench.Workload("tiny:20"), tmp_path, 1, with_peer=False)
    assert (encode.what, decode.what) == ("encode", "decode")
    assert encode.weights == decode.weights == 320
    assert encode.bytes == len((tmp_path / "ours.nnr").read_bytes())
    assert encode.cpu > 0 < decode.cpu
    assert encode.sqnr is not None
    assert encode.sqnr > 10
    assert encode.ratio is None


def test_an_update_is_measured_and_restores_the_new_model(tmp_path: Path) -> None:
    base = {"w": np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)}
    new = {"w": base["w"] + np.float32(1e-3)}
    np.savez(tmp_path / "t.npz", **{"base/w": base["w"], "new/w": new["w"]})
    coded = bench_worker.call("encode", tmp_path / "t.npz", tmp_path / "u.nnr", "--threads=1")
    assert coded["weights"] == 600
    assert bench_worker.call("decode", tmp_path / "u.nnr", "--threads=1")["weights"] == 600


def test_simulated_threads_are_as_fast_as_the_largest_tensor_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_jobs, "_SHORTEST", 1.0)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", **{f"w{i}": rng.normal(size=(100, 300)).astype(np.float32) for i in range(8)})
    for two, four in bench_jobs.speed_up(tmp_path / "t.npz", True, 0).values():
        assert 1.5 < two < 2.1
        assert 2.2 < four < 4.2


def test_simulated_threads_share_the_rows_of_blocks_of_a_large_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_jobs, "SHARED", 1 << 18)
    array = np.random.default_rng(0).normal(size=(1000, 100)).astype(np.float32)
    for scan_order in (0, 3):
        parameters = CodingParameters(-38, -75, 2, scan_order=scan_order)
        for cost in bench_jobs._costs("w", array, parameters):
            assert (cost.shared > 0) == (scan_order > 0)
            assert cost.size == array.nbytes
    taken: list[float] = []
    monkeypatch.setattr(bench_jobs, "_busy", lambda seconds, cores: taken.append(seconds))
    bench_jobs._work(bench_jobs.Cost(5, 4, 100), 1, 4, Semaphore(4))
    assert taken == [1, 1, 1, 1, 1]


def test_the_page_shows_every_row_and_no_name_as_markup() -> None:
    row = bench.Row("a<b>", "encode", "nnc", 1000, 500, 0.1, 0.2, sqnr=30.0, ratio=9.5, size_ratio=0.98)
    page = bench_report.page([row, replace(row, workload="other", what="decode", ratio=2.0)])
    assert "a&lt;b&gt;" in page
    assert "<b>" not in page
    assert "9.50" in page
    assert "98.00 %" in page
    assert page.count("<rect") == 2


def test_an_uncoded_model_compares_as_it_is(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "t.npz", w=array)
    (tmp_path / "t.nnr").write_bytes(nnc_core.encode({"w": array}, lossless=True))
    assert bench_worker.compare(str(tmp_path / "t.npz"), str(tmp_path / "t.nnr")) == {"sqnr": None}


def test_a_sampled_choice_of_parameters_makes_tensors_less_than_a_ten_thousandth_larger() -> None:
    assert abs(sampling.excess(sampling.KINDS, seeds=1)) < 1e-4
