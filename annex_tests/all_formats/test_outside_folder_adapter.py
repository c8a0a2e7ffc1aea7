"""A second adapter from outside: a folder of many files, names and types of its own, axes as ONNX has them.

It does by the book what adapters/README.md asks for: decides what is coded, keeps all other files, and what is small.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import nnc_adapters
from annex_tests.support.program import Nnc, checked
from nnc_adapters import registry
from nnc_adapters.base import ANY_SIZE, DEFAULTS, Adapter, Options, SourceModel, Topology
from nnc_adapters.shared import packing, strict_json
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS, converted, named, stored
from nnc_adapters.shared.exactness import Declared, reasons
from nnc_adapters.shared.files import replacing_folder
from nnc_adapters.shared.lazy import LazyTensors, check_names
from nnc_adapters.shared.paths import files_below, inside
from nnc_adapters.shared.selection import Selection, fits
from nnc_adapters.shared.windows import window
from nnc_core import ModelError

_INDEX = "rack.json"


class RackAdapter(Adapter):
    """A folder: rack.json lists slots with type, dimensions and use, each of which is a file of plain numbers."""

    name = "rack"
    suffixes = (".rack",)
    topology_storage_format = 203
    layout = "onnx"

    def sniff(self, path: Path) -> bool:
        return (path / _INDEX).is_file()

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        files = dict(files_below(path))
        slots = _slots(files[_INDEX].read_bytes())
        exact = reasons({name: Declared(slot["type"], tuple(slot["dims"])) for name, slot in slots.items()})
        selection = Selection(options)
        fetch = {name: partial(_load, path, slot) for name, slot in slots.items()}
        coded = {n: fetch[n] for n in slots if _is_coded(n, slots[n], fetch[n], options, selection, n in exact)}
        kept = {name: file for name, file in files.items() if name not in {slots[n]["file"] for n in coded}}
        options.limits.check("topology_bytes", sum(file.stat().st_size for file in kept.values()), "other files")
        data = packing.pack({name: file.read_bytes() for name, file in kept.items()})
        why = {name: reason for name, reason in exact.items() if name in coded}
        return SourceModel(LazyTensors(coded), Topology(self.topology_storage_format, data), exact=why)

    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        topology: Topology,
        path: Path,
        options: Options = DEFAULTS,
        *,
        force: bool = False,
    ) -> None:
        self.check(topology)
        kept = packing.unpack(topology.data, options.limits)
        slots = _slots(kept[_INDEX])
        check_names(tensors, {name: slot for name, slot in slots.items() if slot["file"] not in kept})
        with replacing_folder(path, force=force) as folder:
            for name, data in kept.items():
                _put(folder / inside(name), data)
            for name in tensors:
                array = converted(tensors[name], named(slots[name]["type"]))
                if list(array.shape) != slots[name]["dims"]:
                    raise ModelError(f"has shape {array.shape}", tensor=name)
                _put(folder / inside(slots[name]["file"]), stored(array))

    def kinds(self, model: SourceModel) -> dict[str, str | None]:
        assert model.topology is not None
        slots = _slots(packing.unpack(model.topology.data, ANY_SIZE)[_INDEX])
        return {name: slot.get("use") for name, slot in slots.items()}


def _slots(data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = strict_json.document(data)["slots"]
        return {name: {**slot, "file": inside(slot["file"])} for name, slot in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"not a rack: {error}") from error


def _is_coded(
    name: str, slot: Any, load: Callable[[], Any], options: Options, selection: Selection, exact: bool
) -> bool:
    if slot["type"] not in FLOATS | INTEGERS:
        return False
    if name in options.chosen:
        return fits(slot["type"], load)
    return selection.takes(slot["type"], prod(slot["dims"]), load, exact=exact)


def _load(folder: Path, slot: Any) -> NDArray[Any]:
    dtype = named(slot["type"])
    data = window(folder / slot["file"], 0, prod(slot["dims"]) * dtype.itemsize)
    return np.asarray(data.view(dtype).reshape(slot["dims"]))


def _put(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


_RANDOM = np.random.default_rng(12)
ARRAYS: dict[str, NDArray[Any]] = {
    "unit 1, weights": _RANDOM.normal(0, 0.1, (24, 16)).astype(np.float16),
    "unit 1, Verschiebung ü": _RANDOM.normal(0, 0.1, 16).astype(np.float32),
    "table": _RANDOM.normal(0, 9, 4000).astype(np.int16),
    "gain": np.array([1.5, -0.25], np.float32),
    "steps": np.array(7, np.int64),
}
USES = {"unit 1, weights": "dense_input_first", "unit 1, Verschiebung ü": "bias"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package with this adapter were installed."""
    monkeypatch.setitem(sys.modules, "another_package", sys.modules[__name__])
    point = EntryPoint("rack", "another_package:RackAdapter", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry.adapters.cache_clear()
    yield
    registry.adapters.cache_clear()


@pytest.fixture
def rack(tmp_path: Path) -> Path:
    folder = tmp_path / "model.rack"
    slots = {}
    for k, (name, array) in enumerate(ARRAYS.items()):
        file = f"numbers/{k}.bin"
        slots[name] = {"file": file, "type": array.dtype.name, "dims": list(array.shape), "use": USES.get(name)}
        _put(folder / file, array.tobytes())
    _put(folder / _INDEX, json.dumps({"slots": slots}).encode())
    _put(folder / "samples/0.txt", b"what the model was tried on\n")
    return folder


@pytest.fixture
def nnc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nnc:
    monkeypatch.chdir(tmp_path)
    return checked


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_below(folder)}


def test_the_folder_comes_back_with_all_its_files(rack: Path, nnc: Any) -> None:
    before = _contents(rack)
    nnc("compress", rack)
    rack.rename("before.rack")
    assert nnc("decompress", "model.nnr").output
    after = _contents(rack)
    assert {name: len(data) for name, data in after.items()} == {name: len(data) for name, data in before.items()}
    lossy = {name for name in before if before[name] != after[name]}
    assert lossy <= {"numbers/0.bin", "numbers/1.bin"}
    found = np.frombuffer(after["numbers/0.bin"], np.float16)
    np.testing.assert_allclose(found, ARRAYS["unit 1, weights"].ravel(), atol=0.03)


def test_lossless_it_is_the_same_to_the_last_byte(rack: Path, nnc: Any) -> None:
    nnc("compress", "--lossless", rack)
    nnc("decompress", "model.nnr", "-o", "again.rack")
    assert _contents(Path("again.rack")) == _contents(rack)
    report = json.loads(nnc("verify", rack, "model.nnr", "--json").stdout)
    assert (report["accepted"], report["topology"]) == (True, "equal")


def test_its_names_are_listed_and_its_small_tensors_are_loaded(rack: Path, nnc: Any) -> None:
    nnc("compress", rack)
    listed = nnc("inspect", "model.nnr").stdout
    assert "unit 1, weights" in listed
    assert "table" in listed
    found = nnc_adapters.load_tensors("model.nnr")
    assert found.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(found["gain"], ARRAYS["gain"])
    nnc("decompress", "model.nnr", "-o", "all.safetensors")
    assert safetensors.numpy.load_file("all.safetensors").keys() == found.keys()


def test_a_suffix_of_another_format_is_refused(rack: Path, nnc: Any) -> None:
    nnc("compress", rack)
    assert "a model of rack (.rack)" in nnc("decompress", "model.nnr", "-o", "model.onnx", code=5).stderr
    assert "a model of rack (.rack)" in nnc("convert", rack, "out.pt", "--into", rack, code=5).stderr


def test_weights_go_to_pytorch_and_back(rack: Path, nnc: Any) -> None:
    torch = pytest.importorskip("torch")
    template = {"linear.weight": torch.zeros(16, 24), "linear.bias": torch.zeros(16)}
    torch.save(template, "template.pt")
    nnc("convert", rack, "out.pt", "--into", "template.pt", "--no-check")
    found = torch.load("out.pt")
    weights, bias = ARRAYS["unit 1, weights"], ARRAYS["unit 1, Verschiebung ü"]
    np.testing.assert_array_equal(found["linear.weight"].numpy(), weights.T.astype(np.float32))
    np.testing.assert_array_equal(found["linear.bias"].numpy(), bias)
    Path("map.json").write_text('{"gain": null}')
    nnc("convert", "out.pt", "back.rack", "--into", rack, "--map", "map.json", "--no-check")
    assert _contents(Path("back.rack")) == _contents(rack)


def test_it_is_named_where_a_bitstream_is_expected(rack: Path, nnc: Any) -> None:
    assert "is a model of the format rack" in nnc("decompress", rack, code=5).stderr
    (entry,) = (entry for entry in json.loads(nnc("formats", "--json").stdout) if entry["name"] == "rack")
    assert (entry["suffixes"], entry["annex"], entry["installed"]) == ([".rack"], "", True)


def test_updates_of_it_are_made_and_applied(rack: Path, nnc: Any) -> None:
    newer = Path("newer.rack")
    nnc("compress", "--lossless", rack)
    nnc("decompress", "model.nnr", "-o", newer)
    weights = ARRAYS["unit 1, weights"] + np.float16(0.5)
    (newer / "numbers/0.bin").write_bytes(weights.tobytes())
    nnc("diff", "--exact", rack, newer, "-o", "update.nnr")
    nnc("patch", rack, "update.nnr", "-o", "patched.rack")
    assert Path("patched.rack/numbers/0.bin").read_bytes() == weights.tobytes()


def test_the_adapter_in_the_guide_works(tmp_path: Path, nnc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[2] / "adapters/README.md"
    code = guide.read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "my_package"}
    exec(compile(code, guide, "exec"), names)
    package = type(sys)("my_package")
    package.PlainAdapter = names["PlainAdapter"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_package", package)
    point = EntryPoint("plain", "my_package:PlainAdapter", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry.adapters.cache_clear()
    weights = np.random.default_rng(1).normal(0, 1, (30, 20)).astype("<f4")
    whole = b'PLAIN {"w": [30, 20]}\n' + weights.tobytes()
    Path("model.plain").write_bytes(whole)
    nnc("compress", "--lossless", "model.plain")
    nnc("decompress", "model.nnr", "-o", "again.plain")
    assert Path("again.plain").read_bytes() == whole
    assert json.loads(nnc("verify", "model.plain", "model.nnr", "--json").stdout)["topology"] == "equal"
    Path("model.plain").write_bytes(whole[:-1])
    assert "bytes instead of" in nnc("compress", "-f", "model.plain", code=5).stderr
