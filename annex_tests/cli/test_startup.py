"""What a command imports before it does anything: people wait for that."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nnc_adapters import cli, compress

PROGRAM = """
import sys
from nnc_adapters.cli import main
main(sys.argv[1:], standalone_mode=False)
print("imported:", *sorted(sys.modules))
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.partition("imported:")[2].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_command_and_no_numpy(option: str) -> None:
    modules = imported(option)
    assert "nnc_adapters.cli" in modules
    assert not modules & {"numpy", "rich", "importlib.metadata", "concurrent.futures"}
    assert not {f"nnc_adapters.cli.{name}" for name in cli.SUMMARIES} & modules


def test_help_of_a_command_imports_no_other_command() -> None:
    modules = imported("inspect", "--help")
    assert {name for name in cli.SUMMARIES if f"nnc_adapters.cli.{name}" in modules} == {"inspect"}
    assert not modules & {"rich", "importlib.metadata", "concurrent.futures", "nnc_core.writing"}


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_help_of_what_codes_needs_no_numpy(command: str) -> None:
    modules = imported(command, "--help")
    assert f"nnc_adapters.cli.{command}" in modules
    assert "numpy" not in modules


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tensor as safetensors, and what it is compressed to."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file({"weight": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)}, path)
    compress(path, threads=1)
    return path


FRAMEWORKS = {"ml_dtypes", "onnx", "onnxruntime", "safetensors", "tensorflow", "torch"}
RARE = {
    "bz2",
    "concurrent.futures",
    "gzip",
    "hashlib",
    "lzma",
    "numpy.ma",
    "pickletools",
    "secrets",
    "tempfile",
    "zipfile",
}
OTHERS = {
    "nnc_adapters.pytorch.pickles",
    "nnc_adapters.pytorch.zipped",
    "nnc_adapters.sharded.index",
    "nnc_core.updates",
}
ENCODER = {"nnc_core.coder.encoder", "nnc_core.coder.planned", "nnc_core.planner.planning", "nnc_core.writing"}
ADAPTER = {"nnc_adapters.pytorch.layout"}
DECODER = {"nnc_core.coder.decoder"}
NEEDLESS = {
    "compress": FRAMEWORKS | RARE | OTHERS | {"nnc_core.file"},
    "decompress": FRAMEWORKS
    | RARE
    | OTHERS
    | ENCODER
    | {"logging", "nnc_adapters.export", "nnc_adapters.pytorch.reader"},
    "inspect": FRAMEWORKS | RARE | OTHERS | ENCODER | ADAPTER | {"logging", "nnc_adapters.api"},
}
"""What a command on a file of safetensors does without, since it takes long to import."""


@pytest.mark.parametrize("command", sorted(NEEDLESS))
def test_a_command_imports_only_what_it_needs(command: str, model: Path, tmp_path: Path) -> None:
    source = model if command == "compress" else model.with_suffix(".nnr")
    target = [] if command == "inspect" else ["-o", str(tmp_path / model.name), "--threads", "1"]
    modules = imported(command, str(source), *target)
    assert f"nnc_adapters.cli.{command}" in modules
    assert not NEEDLESS[command] & modules


def test_decoding_in_python_imports_no_encoder(model: Path) -> None:
    data = model.with_suffix(".nnr").read_bytes()
    program = f"import nnc_core, sys; nnc_core.decode({data!r}, threads=1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert modules >= DECODER
    assert not (RARE | ENCODER | {"click", "json", "logging", "nnc_adapters"}) & modules


@pytest.mark.parametrize("name", sorted(cli.SUMMARIES))
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    command = cli.main.commands[name]
    assert command.name == name
    assert cli.SUMMARIES[name] == " ".join((command.help or "").split("\n\n")[0].split())


def test_there_is_no_other_command() -> None:
    assert sorted(cli.main.commands) == sorted(cli.SUMMARIES)
    with pytest.raises(KeyError):
        cli.main.commands["nothing"]


LAZY = ["nnc_core", "nnc_core.approximator", "nnc_core.bitstream", "nnc_core.coder", "nnc_adapters"]


@pytest.mark.parametrize("package", [*LAZY, "nnc_adapters.containers"])
def test_whatever_a_package_offers_is_there(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_modules_are_found_in_a_package_that_did_not_import_them() -> None:
    program = "import nnc_core; print(nnc_core.coder.encode.__module__, nnc_core.pipeline.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["nnc_core.coder.part18", "nnc_core.pipeline"]


BLAS = """
import atexit, os
atexit.register(lambda: print("threads:", os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS")))
from nnc_adapters.program import main
main()
"""


@pytest.mark.parametrize(
    ("calibrate", "given", "expected"),
    [(False, {}, "1 None"), (True, {}, "None None"), (False, {"OMP_NUM_THREADS": "3"}, "None 3")],
)
def test_only_calibration_needs_threads_of_linear_algebra(
    calibrate: bool, given: dict[str, str], expected: str, model: Path, tmp_path: Path
) -> None:
    names = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    arguments = ["compress", str(model), "-o", str(tmp_path / "x.nnr"), *["--calibrate", str(tmp_path)] * calibrate]
    command = [sys.executable, "-c", BLAS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines()[-1] == f"threads: {expected}"


def test_no_memory_is_searched_for_garbage_at_the_end(model: Path) -> None:
    program = f"import atexit, gc; atexit.register(lambda: print(len(gc.get_objects()) < 1000)); {BLAS}"
    command = [sys.executable, "-c", program, "inspect", str(model.with_suffix(".nnr"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
