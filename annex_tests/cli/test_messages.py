"""What is not what it should be is named, with the next step."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from annex_tests.support import program
from annex_tests.support.program import Nnc
from nnc_adapters.cli import main
from nnc_core.errors import MissingDependencyError

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"
)


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model"))
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"something")
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w=np.zeros(3))
    return stream.getvalue()


STRANGERS = {
    "pointer": (POINTER, "is a Git LFS pointer", "git lfs pull"),
    "page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page", "login"),
    "empty": (b"", "is empty", ""),
    "text": (b"# Read me\n\nThis is how.\n", "is a text", ""),
    "gzip": (gzip.compress(b"something"), "is a gzip file", "unpack it"),
    "tar": (tar(), "is a tar archive", "unpack it"),
    "arrays": (arrays(), "is a zip archive", "nnc_core.write('model.nnr', dict(numpy.load(file)))"),
    "zip": (zipped("data", "policy.pth", "info.txt"), "is a zip archive", "name what is in it, such as policy.pth"),
    "array": (b"\x93NUMPY\1\0", "is an array of numpy", "nnc_core.write"),
    "pickle": (b"\x80\4\x95", "is a pickle of Python", "nnc_core.write"),
    "gguf": (b"GGUF\3\0", "is a GGUF file", "that it was made from"),
    "ort": (b"\x18\0\0\0ORTM", "is an ORT file of onnxruntime", "that it was made from"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "is a zstd file", "unpack it"),
}


@pytest.fixture(params=STRANGERS)
def stranger(request: pytest.FixtureRequest) -> tuple[bytes, str, str]:
    return STRANGERS[request.param]


def failure(result: Result) -> str:
    assert result.exit_code == 5, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", ["model.dat", "model.onnx", "model.pt", "model.safetensors"])
def test_what_is_not_a_model_is_named_whatever_it_is_called(
    nnc: Nnc, tmp_path: Path, stranger: tuple[bytes, str, str], name: str
) -> None:
    data, what, step = stranger
    path = tmp_path / name
    path.write_bytes(data)
    message = failure(nnc("compress", path))
    if name == "model.dat" or what in ("is a Git LFS pointer", "is a web page", "is empty"):
        assert f"{path}: {what}, not a model" in message
        assert step in message


@pytest.mark.parametrize("command", ["inspect", "decompress", "validate"])
def test_what_is_not_a_bitstream_is_named(
    nnc: Nnc, tmp_path: Path, stranger: tuple[bytes, str, str], command: str
) -> None:
    data, what, step = stranger
    if not data:
        pytest.skip("an empty file is a damaged bitstream")
    path = tmp_path / "model.nnr"
    path.write_bytes(data)
    message = failure(nnc(command, path))
    assert f"{path}: {what}, not an NNR bitstream" in message
    assert step in message


@pytest.mark.parametrize("command", ["inspect", "decompress", "validate"])
def test_a_model_in_place_of_a_bitstream_is_named_with_its_format(nnc: Nnc, model: Path, command: str) -> None:
    message = failure(nnc(command, model))
    assert "is a model of the format onnx, not an NNR bitstream; nnc compress makes one of it" in message


def test_a_bitstream_in_place_of_a_model_is_named(nnc: Nnc, bitstream: Path) -> None:
    message = failure(nnc("verify", bitstream, bitstream))
    assert "is an NNR bitstream, not a model; nnc decompress restores the model" in message


def test_what_has_the_name_with_a_suffix_is_named_where_there_is_no_such_file(nnc: Nnc, model: Path) -> None:
    message = failure(nnc("compress", model.with_suffix("")))
    assert f"{model.with_suffix('')}: No such file or directory; there is {model.name}" in message


def test_a_folder_without_a_model_is_named(nnc: Nnc, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert "is a folder without a model" in failure(nnc("compress", tmp_path / "notes"))
    assert "is a folder without an NNR bitstream" in failure(
        nnc("decompress", tmp_path / "notes", "-o", tmp_path / "x")
    )


def test_a_missing_package_is_named_with_what_needs_it(
    nnc: Nnc, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b'{"w":{"dtype":"BF16","shape":[64],"data_offsets":[0,128]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.arange(64, dtype=np.uint16).tobytes())
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ml_dtypes", None)
        message = nnc("compress", path).stderr
        assert "the data type bfloat16 needs the package 'ml_dtypes'" in message
        assert "torch" not in message
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnx", None)
        assert "the format ONNX needs the package 'onnx'" in nnc("compress", model).stderr


def test_a_missing_package_can_be_had_from_an_extra_or_by_its_own_name() -> None:
    assert str(MissingDependencyError("a", "b", "c")).endswith("pip install 'nnc-suite[b]'")
    assert str(MissingDependencyError("a")).endswith("pip install a")


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(main.commands))], ids=" ".join)
def test_help_begins_with_a_sentence(command: list[str]) -> None:
    lines = program.nnc(*command, "--help").output.splitlines()
    paragraph = " ".join(line.strip() for line in lines[2 : lines.index("", 2)])
    assert paragraph[0].isupper()
    assert paragraph.endswith(".")


def test_the_list_of_commands_shows_whole_sentences() -> None:
    output = CliRunner().invoke(main, ["--help"], terminal_width=100).output
    lines = output[output.index("Commands:") :].splitlines()[1:]
    entries = " ".join(line if line.startswith("   ") else f"\n{line}" for line in lines if line).split("\n")[1:]
    assert len(entries) >= len(main.commands)
    for entry in entries[: len(main.commands)]:
        assert entry.rstrip().endswith("."), entry
        assert "..." not in entry


def test_an_update_is_not_decompressed_but_applied(nnc: Nnc, model: Path, bitstream: Path, tmp_path: Path) -> None:
    assert nnc("diff", model, bitstream, "-o", tmp_path / "u.nnr").exit_code == 0
    result = nnc("decompress", tmp_path / "u.nnr")
    assert result.exit_code == 5
    assert "is an update, not a model; nnc patch applies it to its base" in result.stderr


def test_a_file_in_the_place_of_a_command_is_told_from_a_wrong_word(nnc: Nnc, model: Path) -> None:
    result = nnc(model)
    assert result.exit_code == 2
    assert f"did you mean nnc compress {model}" in result.stderr
    assert "No such command 'compres'" in nnc("compres").stderr


def test_what_is_there_is_replaced_by_an_option_that_the_message_names(nnc: Nnc, model: Path, bitstream: Path) -> None:
    assert "-f replaces it" in nnc("compress", model, "-o", bitstream).stderr
