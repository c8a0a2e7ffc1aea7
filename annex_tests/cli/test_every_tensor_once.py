"""Each tensor is fetched from its file and decoded exactly once, whatever the format, command and number of threads."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import nnc_adapters
import nnc_core
from annex_tests.support.every_format import MODELS, written
from annex_tests.support.program import Nnc
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core import file as coder_file
from nnc_core.bitstream.marks import mark_of

Files = dict[str, bytes]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, files = MODELS[request.param]
    return written(name, files(), tmp_path / "source")


@pytest.fixture
def bitstream(model: Path, tmp_path: Path, nnc: Nnc) -> Path:
    target = tmp_path / "coded.nnr"
    done = nnc("compress", model, "-o", target)
    assert done.exit_code == 0, done.output
    return target


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each tensor was decoded."""
    times: Counter[str] = Counter()
    decode_unit = coder_file.decode_unit

    def counting(unit: Any, *arguments: Any) -> Any:
        times.update(mark_of(name).tensor for name in unit.names)
        return decode_unit(unit, *arguments)

    monkeypatch.setattr(coder_file, "decode_unit", counting)
    return times


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each tensor was fetched from a model's file."""
    times: Counter[str] = Counter()
    get = LazyTensors.__getitem__

    def counting(self: LazyTensors, name: str) -> Any:
        times[name] += 1
        return get(self, name)

    monkeypatch.setattr(LazyTensors, "__getitem__", counting)
    return times


def names(bitstream: Path) -> Counter[str]:
    """Each tensor of the bitstream once; there are some, or the tests would prove nothing."""
    with nnc_core.open(bitstream) as file:
        found = Counter(list(file))
    assert found
    return found


threads = pytest.mark.parametrize("threads", [1, 2])


@threads
def test_compress_fetches_each_tensor_to_plan_and_to_code_it(
    model: Path, tmp_path: Path, nnc: Nnc, fetched: Counter[str], threads: int
) -> None:
    assert nnc("compress", model, "-o", tmp_path / "out.nnr", "--threads", threads).exit_code == 0
    once = names(tmp_path / "out.nnr")
    assert fetched.keys() >= once.keys()
    assert max(fetched.values()) <= 2


@threads
def test_decompress_decodes_each_tensor_once(
    bitstream: Path, model: Path, tmp_path: Path, nnc: Nnc, decoded: Counter[str], threads: int
) -> None:
    target = tmp_path / "out" / model.name
    target.parent.mkdir()
    assert nnc("decompress", bitstream, "-o", target, "--threads", threads).exit_code == 0
    assert decoded == names(bitstream)


@threads
def test_decompress_into_a_model_decodes_each_tensor_once(
    bitstream: Path, model: Path, tmp_path: Path, nnc: Nnc, decoded: Counter[str], threads: int
) -> None:
    target = tmp_path / "out" / model.name
    target.parent.mkdir()
    assert nnc("decompress", bitstream, "--into", model, "-o", target, "--threads", threads).exit_code == 0
    assert decoded == names(bitstream)


@threads
def test_verify_decodes_and_fetches_each_tensor_once(
    bitstream: Path, model: Path, nnc: Nnc, decoded: Counter[str], fetched: Counter[str], threads: int
) -> None:
    nnc("verify", model, bitstream, "--threads", threads)
    assert decoded == names(bitstream)
    assert fetched == decoded


@threads
def test_convert_decodes_each_tensor_once(
    bitstream: Path, model: Path, tmp_path: Path, nnc: Nnc, decoded: Counter[str], threads: int
) -> None:
    target = tmp_path / "out" / model.name
    target.parent.mkdir()
    nnc("convert", bitstream, target, "--into", model, "--threads", threads)
    assert decoded == names(bitstream)


def test_inspect_decodes_nothing(bitstream: Path, nnc: Nnc, decoded: Counter[str]) -> None:
    assert nnc("inspect", bitstream).exit_code == 0
    assert not decoded


def test_no_mapping_of_the_project_answers_what_it_contains_by_making_the_value() -> None:
    for package in (nnc_core, nnc_adapters):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(("__main__", "_parse")):
                with suppress(nnc_core.MissingDependencyError):
                    importlib.import_module(module.name)
    own = [kind for kind in descendants(Mapping) if kind.__module__.startswith("nnc_")]
    assert {"NnrFile", "Items", "LazyTensors"} <= {kind.__name__ for kind in own}
    assert [kind for kind in own if kind.__contains__ is Mapping.__contains__] == []


def descendants(kind: type) -> set[type]:
    return {kind, *(lower for child in kind.__subclasses__() for lower in descendants(child))}
