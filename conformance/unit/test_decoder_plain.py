"""The decoder in plain Python, which shares nothing with the codec, agrees with it and with the corpus."""

import ast
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_core
from conformance.decoder.decode import Decoder
from conformance.decoder.errors import InvalidError
from conformance.decoder.state import State
from conformance.support import every_unit
from conformance.support.corpus import for_each, model_names, model_steps
from conformance.unit.test_corpus_decode import assert_is

FOLDER = Path(__file__).parents[1] / "decoder"
LARGE = ("resnet56_blocks_p0_dq0_s1", "resnet56_tensors_dq1")


def decoded(data: bytes, **known: Any) -> dict[str, Any]:
    decoder = Decoder(**known)
    decoder.decode(data)
    return decoder.tensors


def is_valid(data: bytes) -> bool:
    with suppress(InvalidError):
        decoded(data)
        return True
    return False


def test_it_needs_numpy_only() -> None:
    imported = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "decoder"}


@for_each("case", [case for case in model_names() if case not in LARGE])
def test_it_decodes_the_corpus_to_exactly_the_expected_tensors(case: str) -> None:
    state = State()
    for step in model_steps(case):
        beside = {name: asdict(known) for name, known in step.input_parameters.items()}
        beside = {n: {k: v for k, v in known.items() if v is not None} for n, known in beside.items()}
        for name, array in decoded(step.bitstream, state=state, beside=beside).items():
            assert_is(array, step, name)


@pytest.mark.parametrize("name", [name for name, _ in every_unit.bitstreams()])
def test_it_reads_every_kind_of_unit_as_the_codec_does(name: str) -> None:
    data = dict(every_unit.bitstreams())[name]
    expected = nnc_core.decode(data)
    found = decoded(data)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[tensor], expected[tensor]) for tensor in expected)


def test_a_cut_bitstream_is_not_valid() -> None:
    data = nnc_core.encode({"w": np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10)})
    assert [size for size in range(len(data)) if is_valid(data[:size]) and decoded(data[:size])] == []


def test_dimensions_that_the_payload_cannot_fill_take_no_memory() -> None:
    huge = every_unit.tensor()
    huge.tensor_dimensions = (1 << 18, 1 << 10)
    data = every_unit.made(lambda writer: writer.data_unit(huge, every_unit.PAYLOAD))
    with pytest.raises(InvalidError, match="too short"):
        decoded(data)


def test_it_is_a_program_that_keeps_its_state_in_a_folder(tmp_path: Path) -> None:
    base = {"w": np.zeros((4, 6), np.float32)}
    sender, receiver = nnc_core.UpdateEncoder(base), nnc_core.UpdateDecoder(base)
    for number in range(3):
        update = sender.encode({"w": np.arange(24, dtype=np.float32).reshape(4, 6) * (number + 1) ** 2})
        sender.commit(update)
        receiver.apply(update)
        (tmp_path / "in.nnr").write_bytes(update)
        arguments = [tmp_path / "in.nnr", tmp_path / "out.npz", "--state", tmp_path]
        subprocess.run([sys.executable, FOLDER, *arguments], check=True)
    with np.load(tmp_path / "out.npz") as archive:
        assert np.array_equal(archive["w"], receiver.model["w"])


def test_it_says_with_its_exit_code_that_a_bitstream_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "in.nnr").write_bytes(b"\0\4\2\7")
    (tmp_path / "beside.json").write_text(json.dumps({}))
    arguments = [tmp_path / "in.nnr", tmp_path / "out.npz", "--oob", tmp_path / "beside.json"]
    done = subprocess.run([sys.executable, FOLDER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "general_profile_idc" in done.stderr
