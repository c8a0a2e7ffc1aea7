"""Files and folders appear complete or not at all."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnc_adapters import registry
from nnc_adapters.shared.files import replacing, replacing_folder


@contextmanager
def _write_file(path: Path, text: str) -> Iterator[None]:
    with replacing(path) as stream:
        yield
        stream.write(text.encode())


@contextmanager
def _write_folder(path: Path, text: str) -> Iterator[None]:
    with replacing_folder(path) as folder:
        yield
        (folder / "f").write_text(text)


def fill(path: Path, text: str, force: bool = False) -> None:
    with replacing_folder(path, force=force) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(text)


def test_a_new_folder_appears_complete(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "file").write_text("new")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_existing_folder_is_replaced_only_with_force(tmp_path: Path) -> None:
    fill(tmp_path / "model", "old")
    with pytest.raises(FileExistsError, match="-f replaces it"):
        fill(tmp_path / "model", "new")
    fill(tmp_path / "model", "new", force=True)
    assert (tmp_path / "model" / "inner" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_or_link_at_its_place_is_replaced_but_not_what_it_leads_to(tmp_path: Path, linked: bool) -> None:
    fill(tmp_path / "other", "kept")
    place = tmp_path / "model"
    place.symlink_to(tmp_path / "other") if linked else place.write_text("old")
    fill(place, "new", force=True)
    assert not place.is_symlink()
    assert (tmp_path / "other" / "inner" / "file").read_text() == "kept"
    assert {p.name for p in tmp_path.iterdir()} == {"model", "other"}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "model", "old")

    def fail() -> None:
        with replacing_folder(tmp_path / "model", force=True) as folder:
            (folder / "file").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "model" / "inner" / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_take_its_place_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "model", "old")
    real = __import__("os").rename

    def failing(source, target):
        if Path(target).name == "model" and not (tmp_path / "tried").exists():
            (tmp_path / "tried").write_text("")
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr("nnc_adapters.shared.files._renamed", lambda *_: False)
    monkeypatch.setattr("nnc_adapters.shared.files.os.rename", failing)
    with pytest.raises(OSError, match="no"):
        fill(tmp_path / "model", "new", force=True)
    assert (tmp_path / "model" / "inner" / "file").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"model", "tried"}


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system cannot exchange two folders")
def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path) -> None:
    target, done, missing = tmp_path / "model", threading.Event(), []
    fill(target, "old")

    def watch() -> None:
        while not done.is_set():
            if not target.exists():
                missing.append(target)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        fill(target, str(number), force=True)
    done.set()
    watcher.join()
    assert not missing
    assert (target / "inner" / "file").read_text() == "199"


def test_a_system_that_cannot_exchange_folders_moves_the_old_one_aside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nnc_adapters.shared.files._renamed", lambda *_: False)
    fill(tmp_path / "model", "old")
    fill(tmp_path / "model", "new", force=True)
    assert (tmp_path / "model" / "inner" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, replacing(tmp_path / "absent" / "model"):
        pass
    assert missing.value.filename == str(tmp_path / "absent")
    with pytest.raises(IsADirectoryError) as folder, replacing(tmp_path, force=True):
        pass
    assert folder.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No space left") as full, replacing(tmp_path / "model"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert full.value.filename == str(tmp_path / "model")
    with pytest.raises(FileExistsError) as inside, replacing_folder(tmp_path / "model") as there:
        there.mkdir()
    assert inside.value.filename == str(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_names_that_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "model"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize("path", [Path(), Path(".."), Path("/")])
def test_what_has_no_name_of_its_own_cannot_be_replaced(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for context in (replacing, replacing_folder):
        with pytest.raises(OSError, match=r"directory|busy"), context(path, force=True):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with replacing(pipe) as stream:
        stream.write(b"whole")
        stream.seek(0)
        stream.write(b"W")
    reader.join()
    assert received == [b"Whole"]
    assert pipe.is_fifo()
    with pytest.raises(NotADirectoryError), replacing_folder(pipe, force=True):
        pass
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_lies_among_the_devices_is_never_replaced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nnc_adapters.shared.files.os.devnull", str(tmp_path / "null"))
    place = tmp_path / "stdout"
    place.touch()
    number = place.stat().st_ino
    with replacing(place, force=True) as stream:
        stream.write(b"data")
    assert place.read_bytes() == b"data"
    assert place.stat().st_ino == number


@pytest.mark.parametrize(("adapter", "file"), [("tensorflow", "saved_model.pb"), ("nnef", "graph.nnef")])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(adapter: str, file: str, tmp_path: Path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / file).write_text("")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (reader,) = (a for a in registry.adapters() if a.name == adapter)
    with pytest.raises(PermissionError, match="locked"):
        reader.read(tmp_path)


@pytest.mark.parametrize("system", ["knows how", "knows no better"])
@pytest.mark.parametrize("writes", [_write_file, _write_folder])
def test_of_two_writers_without_force_the_second_fails(system: str, writes, tmp_path: Path, monkeypatch) -> None:
    if system == "knows no better":
        monkeypatch.setattr("nnc_adapters.shared.files._renamed", lambda *_: False)
    path = tmp_path / "out"
    with pytest.raises(FileExistsError), writes(path, "second"), writes(path, "first"):
        pass
    (written,) = [path] if path.is_file() else path.iterdir()
    assert written.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
