"""The bytes of a file are read where they are asked for, and one that becomes shorter is an error, not a signal."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest

import nnc_core
from nnc_core.errors import ModelError
from nnc_core.stored import NewFile, StoredBytes, viewed

ROOT = Path(__file__).resolve().parents[2]
DATA = Random(0).randbytes(100_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def test_slices_and_bytes_are_those_of_the_file(path: Path) -> None:
    stored, source = StoredBytes(path), Random(1)
    assert len(stored) == len(DATA)
    for _ in range(3000):
        at = source.randrange(-len(DATA) - 5, len(DATA) + 5)
        part = slice(at, source.choice((None, at + source.choice((0, 1, 5, 64, 20_000, 90_000)))))
        assert stored[part] == DATA[part]
        if -len(DATA) <= at < len(DATA):
            assert stored[at] == DATA[at]
    for beyond in (len(DATA), -len(DATA) - 1):
        with pytest.raises(IndexError):
            stored[beyond]


def test_an_empty_file_and_an_open_one_are_read_alike(path: Path) -> None:
    with path.open("rb") as stream:
        stream.seek(7)
        assert StoredBytes(stream)[:3] == DATA[:3]
        assert stream.read(1) == DATA[7:8]
    path.write_bytes(b"")
    assert StoredBytes(path)[:] == b""


def test_without_a_read_at_a_place_the_same_bytes_come(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "preadv")
    stored = StoredBytes(path)
    stored.fill(array := np.empty(70_000, np.uint8), 5)
    assert array.tobytes() == DATA[5:70_005]
    assert stored[90_000:] == DATA[90_000:]
    assert stored[5:70_000] == DATA[5:70_000]


def test_a_part_of_a_file_is_like_a_file_of_its_own(path: Path) -> None:
    part = StoredBytes(path).part(slice(1000, 60_000)).part(slice(5, 50_000))
    assert len(part) == 49_995
    assert part[:] == DATA[1005:51_000]
    assert part[-3:] == DATA[50_997:51_000]
    part.fill(array := np.empty(9, np.uint8), 2)
    assert array.tobytes() == DATA[1007:1016]
    os.truncate(path, 30_000)
    with pytest.raises(ModelError, match="it ends at byte 28995 of 49995"):
        part[:]
    part.release()
    with pytest.raises(ValueError, match="released"):
        part[40_000:]


def test_threads_share_a_file(path: Path) -> None:
    stored = StoredBytes(path)
    places = [Random(n).randrange(len(DATA) - 3000) for n in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: bytes(stored[at : at + at % 3000]), places))
    assert found == [DATA[at : at + at % 3000] for at in places]


def test_a_file_that_became_shorter_is_an_error_with_its_name(path: Path) -> None:
    stored = StoredBytes(path)
    os.truncate(path, 50_000)
    assert stored[49_000:50_000] == DATA[49_000:50_000]
    with pytest.raises(ModelError, match=f"{path}: the file became shorter: it ends at byte 50000 of 100000"):
        stored[49_000:50_001]
    with pytest.raises(ModelError, match=f"{path}: the file became shorter: it ends at byte 50000 of 100000"):
        stored.fill(np.empty(1001, np.uint8), 49_000)
    stored.fill(array := np.empty(1000, np.uint8), 49_000)
    assert array.tobytes() == DATA[49_000:50_000]


def test_a_released_file_is_not_read_any_more(path: Path) -> None:
    stored = StoredBytes(path)
    stored.release()
    stored.release()
    with pytest.raises(ValueError, match="released"):
        stored[:1]


def test_what_is_in_memory_is_viewed_without_a_copy() -> None:
    array = np.arange(6, dtype=np.int16)
    assert viewed(memoryview(array)).nbytes == 12
    assert viewed(stored := bytearray(b"abc")).obj is stored


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bitstream_that_becomes_shorter_after_it_was_opened_is_an_error(tmp_path: Path, threads: int) -> None:
    rng = np.random.default_rng(0)
    tensors = {f"t{i}": rng.normal(size=(40, 400)).astype(np.float32) for i in range(12)}
    path = tmp_path / "model.nnr"
    path.write_bytes(nnc_core.encode(tensors))
    with nnc_core.open(path) as file:
        assert len(file.tensors) == 12
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(ModelError, match="became shorter"):
            dict(file.decode_all(threads))


def test_a_pipe_is_read_to_its_end() -> None:
    data = nnc_core.encode({"w": np.arange(20, dtype=np.float32)})
    ends = os.pipe()
    os.write(ends[1], data)
    os.close(ends[1])
    with os.fdopen(ends[0], "rb") as stream:
        assert list(nnc_core.open(stream)) == ["w"]
    assert list(nnc_core.open(io.BytesIO(data))) == ["w"]


def test_no_module_maps_files_that_others_can_change() -> None:
    """A temporary file without a name is one's own; callers may give a mapping, which is theirs."""
    allowed = {"embedding.py", "file.py", "index.py", "validate.py", "stored.py"}
    for source in (*ROOT.glob("nnc_core/**/*.py"), *ROOT.glob("adapters/**/*.py")):
        text = source.read_text()
        assert "memmap(" not in text, source
        assert source.name in allowed or "mmap" not in text.replace("memmap", ""), source
        assert source.name == "embedding.py" or "mmap.mmap(" not in text, source


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f8", "c16", "?"])
def test_large_and_small_data_are_written_as_they_are(tmp_path: Path, dtype: str) -> None:
    sizes = (0, 3, 100_000, 3_000_000)
    written = [np.random.default_rng(n).integers(0, 255, n).astype(dtype) for n in sizes]
    with NewFile(tmp_path / "new") as stream:
        assert [stream.write(memoryview(array)) for array in written] == [array.nbytes for array in written]
        stream.writelines([b"end", bytes(2_000_001)])
    expected = b"".join(array.tobytes() for array in written) + b"end" + bytes(2_000_001)
    assert (tmp_path / "new").read_bytes() == expected


def test_a_new_file_was_not_there_before(path: Path) -> None:
    with pytest.raises(FileExistsError, match="file"):
        NewFile(path)
    assert path.read_bytes() == DATA
