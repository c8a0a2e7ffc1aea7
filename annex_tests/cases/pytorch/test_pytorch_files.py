"""Files of PyTorch as practitioners have them: nothing is refused without need."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import os
import pathlib
import pickle
import random
import re
import shutil
import struct
import uuid
import zipfile

import numpy as np
import pytest

import nnc_adapters
from annex_tests.support.torch_files import OPAQUE, case, linear, near, safetensors, tensors, torch
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.errors import ModelError

OBJECTS = {
    "numpy scalar": np.float64(0.3),
    "numpy bool": np.bool_(True),
    "numpy array": np.arange(5.0),
    "numpy matrix in Fortran order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "numpy array of objects": np.array(["a", None], dtype=object),
    "numpy generator": np.random.default_rng(3),
    "numpy state": np.random.RandomState(3),
    "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "defaultdict": collections.defaultdict(int, a=1),
    "defaultdict of lists": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=5),
    "path": pathlib.PurePosixPath("data/train"),
    "path of this system": pathlib.Path("data"),
    "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "time span": datetime.timedelta(seconds=3),
    "decimal": decimal.Decimal("0.1"),
    "uuid": uuid.UUID(int=3),
    "sets": [{1, 2}, frozenset({3})],
    "range": range(3),
    "complex": 1 + 2j,
    "type": float,
    "ellipsis": (..., NotImplemented),
    "chained maps": collections.ChainMap({"a": 1}, {"b": 2}),
    "user's dictionary": collections.UserDict(a=1),
    "random generator": random.Random(3),
    "counter-based generator": np.random.Generator(np.random.Philox(3)),
    "numpy masked array": np.ma.masked_array([1.0, 2.0], [False, True]),
    "numpy records": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "pattern": re.compile("a+"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("what", OBJECTS)
def test_data_beside_the_tensors_are_carried_unchanged(saved, through, what, protocol):
    state = {"state_dict": {"w": torch.randn(48, 40)}, "other": OBJECTS[what], "epoch": 3}
    path = saved(state, pickle_protocol=protocol)
    restored = torch.load(through(path), weights_only=False)
    assert pickle.dumps(restored["other"]) == pickle.dumps(torch.load(path, weights_only=False)["other"])
    assert list(restored) == list(state)
    assert list(PytorchAdapter().read(path).tensors) == ["w"]


@pytest.mark.parametrize(
    "name", ["numpy_scalar.ckpt", "numpy_array.ckpt", "namespace.pth", "standard_library_objects.pth"]
)
def test_reported_objects_are_carried_unchanged(through, name):
    before, after = (torch.load(path, weights_only=False) for path in (case(name), through(case(name))))
    assert set(tensors(case(name))) == {"state_dict.w"}
    before.pop("state_dict")
    after.pop("state_dict")
    assert pickle.dumps(before) == pickle.dumps(after)


class Settings:
    """A class that no checkpoint is read with."""

    def __init__(self):
        self.rate = 0.1
        self.buffer = torch.ones(3)


def test_an_object_of_any_class_is_carried_where_that_is_asked_for(saved, through):
    path = saved({"w": torch.randn(48, 40), "settings": Settings()})
    with pytest.raises(ModelError, match=r"Settings.*opaque"):
        through(path)
    restored = torch.load(through(path, opaque=True), weights_only=False)
    assert restored["settings"].rate == 0.1
    assert torch.equal(restored["settings"].buffer, torch.ones(3))
    assert not torch.equal(restored["w"], torch.load(path, weights_only=False)["w"])


def test_a_result_with_opaque_objects_is_written_only_where_that_is_asked_for(saved, tmp_path):
    path = saved({"w": torch.randn(48, 40), "settings": Settings()})
    nnc_adapters.compress(path, tmp_path / "m.nnr", opaque=True)
    with pytest.raises(ModelError, match=r"Settings.*opaque"):
        nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_a_bitstream_says_what_it_carries_opaquely(saved):
    model = PytorchAdapter().read(saved({"w": torch.randn(48, 40), "settings": Settings()}), OPAQUE)
    assert any("Settings" in remark for remark in model.remarks)


def test_what_loads_without_trust_still_does_after_opaque_carriage(saved, through):
    path = saved({"w": torch.randn(48, 40), "epoch": 3, "counter": collections.Counter("aab")})
    restored = torch.load(through(path, opaque=True), weights_only=True)
    assert restored["counter"] == {"a": 2, "b": 1}


def test_whole_modules_are_carried_opaquely_under_the_names_of_their_state_dict(tmp_path, through):
    torch.save(linear(), tmp_path / "m.pt")
    assert list(PytorchAdapter().read(tmp_path / "m.pt", OPAQUE).tensors) == ["0.weight", "0.bias"]
    restored = torch.load(through(tmp_path / "m.pt", opaque=True), weights_only=False)
    assert restored(torch.zeros(1, 24)).shape == (1, 32)


@pytest.mark.parametrize("name", ["whole_module.pth", "module_in_checkpoint.pth"])
def test_reported_modules_are_carried_opaquely(through, name):
    with pytest.raises(ModelError, match="opaque"):
        through(case(name))
    restored = torch.load(through(case(name), opaque=True), weights_only=False)
    before = torch.load(case(name), weights_only=False)
    for one, other in zip(_modules(before), _modules(restored), strict=True):
        assert list(one.state_dict()) == list(other.state_dict())


def _modules(value):
    return (
        [value] if isinstance(value, torch.nn.Module) else [v for v in value.values() if isinstance(v, torch.nn.Module)]
    )


@pytest.mark.parametrize(
    "value",
    [
        linear(),
        {"model": linear(), "epoch": 3},
        {"model": linear(), "settings": Settings(), "epoch": 3},
        {"state_dict": {"w": torch.randn(20)}, "settings": Settings()},
        {"state_dict": {"w": torch.randn(20)}, "args": {"deep": [Settings]}},
    ],
    ids=["module", "module in a dict", "module and object", "object", "class"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_hint_converts_the_file(tmp_path, monkeypatch, value, legacy):
    torch.save(value, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError) as caught:
        PytorchAdapter().read(tmp_path / "m.pt")
    line = str(caught.value).partition("convert it: ")[2]
    monkeypatch.chdir(tmp_path)
    exec(line, {"torch": torch, "file": "m.pt"})
    model = PytorchAdapter().read(tmp_path / "weights.pt")
    assert model.tensors


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["torchscript_scripted.pt", "torchscript_traced.pt"])
def test_scripts_of_classes_of_the_main_program_are_read(through, name):
    path = case(name)
    before, after = torch.jit.load(path).state_dict(), torch.jit.load(through(path)).state_dict()
    assert list(before) == list(after)
    assert all((before[key] - after[key]).abs().max() < 0.05 for key in before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_class_of_a_script_without_a_module_is_read(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner(x)

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    torch.jit.save(torch.jit.trace(Net(), torch.zeros(1, 24)), tmp_path / "m.pt")
    assert "inner.0.weight" in PytorchAdapter().read(tmp_path / "m.pt").tensors


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_origins_of_operations_can_be_left_behind(tmp_path):
    module = linear()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 24)), tmp_path / "m.pt")
    whole = nnc_adapters.compress(tmp_path / "m.pt", tmp_path / "whole.nnr")
    less = nnc_adapters.compress(tmp_path / "m.pt", tmp_path / "m.nnr", strip_debug=True)
    assert less.bytes_after < whole.bytes_after - 300
    assert any("left behind" in warning for warning in less.warnings)
    restored = torch.jit.load(nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out.pt").target)
    assert restored(torch.ones(1, 24)).shape == (1, 32)
    with zipfile.ZipFile(tmp_path / "out.pt") as archive:
        assert archive.testzip() is None
        assert not [name for name in archive.namelist() if name.endswith("debug_pkl")]
        for info in archive.infolist():
            archive.fp.seek(info.header_offset + 26)
            start = info.header_offset + 30 + sum(struct.unpack("<HH", archive.fp.read(4)))
            assert start % 64 == 0, info.filename


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def repository(tmp_path):
    """A folder as Hugging Face's hub has it."""
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    safetensors.save_file({"w": torch.randn(40, 30)}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "small"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("# A model")
    (folder / ".gitattributes").write_bytes(b"")
    (folder / "onnx" / "model.onnx").write_bytes(b"not looked at")
    return folder


def test_a_folder_with_one_file_of_weights_is_restored(repository, through):
    restored = through(repository)
    before, after = contents(repository), contents(restored)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
    assert list(PytorchAdapter().read(repository).tensors) == ["w"]


def test_a_folder_of_parts_is_restored(repository, through):
    for part in ("unet", "vae"):
        (repository / part).mkdir()
        shutil.copy(repository / "model.safetensors", repository / part / "diffusion_pytorch_model.safetensors")
    (repository / "model.safetensors").unlink()
    (repository / "config.json").rename(repository / "model_index.json")
    assert list(PytorchAdapter().read(repository).tensors) == ["unet.w", "vae.w"]
    assert contents(through(repository)).keys() == contents(repository).keys()


def test_the_same_weights_in_two_files_of_a_folder_are_told_apart(repository):
    torch.save({"w": torch.randn(40, 30)}, repository / "pytorch_model.bin")
    assert list(PytorchAdapter().read(repository).tensors) == ["model.safetensors.w", "pytorch_model.bin.w"]


def test_a_folder_of_links_into_a_cache_is_read(repository, tmp_path, through):
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for path in repository.iterdir():
        if path.is_file():
            (cache / path.name).symlink_to(os.path.relpath(path, cache))
    restored = through(cache)
    assert contents(restored).keys() == {p.name for p in cache.iterdir()}
    assert not (restored / "config.json").is_symlink()


def test_a_folder_with_its_own_weights_and_tensors_loads_into_a_module(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    weight = torch.randn(32, 24)
    safetensors.save_file({"0.weight": weight, "0.bias": torch.randn(32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    assert near(nnc_adapters.pytorch.load(tmp_path / "m.nnr", linear()), weight)


@pytest.mark.parametrize("name", ["hugging_face_folder", "diffusers_folder"])
def test_reported_folders_are_restored(through, name):
    before, after = contents(case(name)), contents(through(case(name)))
    assert before.keys() == after.keys()
    assert all(before[file] == after[file] for file in before if not file.endswith(".safetensors"))


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text.encode() + data


def test_metadata_that_are_null_are_read_as_the_library_does(tmp_path):
    path = tmp_path / "m.safetensors"
    entry = '"w":{"dtype":"F32","shape":[4,5],"data_offsets":[0,80]}'
    path.write_bytes(header(f'{{"__metadata__":null,{entry}}}', bytes(80)))
    assert safetensors.load_file(path).keys() == {"w"}
    model = PytorchAdapter().read(path)
    PytorchAdapter().write(model.tensors, model.topology, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == path.read_bytes()


def test_of_a_tensor_that_is_described_twice_the_library_is_followed(tmp_path):
    path = tmp_path / "m.safetensors"
    entries = [
        '"w":{"dtype":"F32","shape":[20],"data_offsets":[0,80]}',
        '"w":{"dtype":"F32","shape":[4,5],"data_offsets":[0,80]}',
    ]
    path.write_bytes(header(f"{{{','.join(entries)}}}", np.arange(20, dtype="<f4").tobytes()))
    try:
        theirs = safetensors.load_file(path)
    except Exception as error:
        assert "uplicate" in str(error)  # noqa: PT017
        with pytest.raises(ModelError, match="twice"):
            PytorchAdapter().read(path)
        return
    ours = PytorchAdapter().read(path).tensors
    assert {name: array.shape for name, array in ours.items()} == {n: tuple(t.shape) for n, t in theirs.items()}


def test_several_metadata_and_unknown_keys_are_judged_as_the_library_does(tmp_path):
    path = tmp_path / "m.safetensors"
    entry = '{"dtype":"F32","shape":[4,5],"data_offsets":[0,80]}'
    for text in (
        f'{{"__metadata__":{{"a":1}},"w":{entry}}}',
        f'{{"__metadata__":[],"w":{entry}}}',
        f'{{"__metadata__":{{}},"__metadata__":{{"a":"b"}},"w":{entry}}}',
        f'{{"w":{entry[:-1]},"more":1}}}}',
        f'{{"w":{entry}}}    ',
    ):
        path.write_bytes(header(text, bytes(80)))
        assert _accepts(safetensors.load_file, path) == _accepts(PytorchAdapter().read, path), text


def _accepts(read, path):
    try:
        read(path)
    except (safetensors_error(), ModelError):
        return False
    return True


def safetensors_error():
    from safetensors import SafetensorError

    return SafetensorError
