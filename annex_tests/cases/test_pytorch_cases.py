"""Files of PyTorch as practitioners have them: nothing is damaged, nothing is refused without need."""

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
import zlib
from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.errors import ModelError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
prune = pytest.importorskip("torch.nn.utils.prune")

SHARED = Path(os.environ.get("NNC_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "cases" / "pytorch"

OPAQUE = Options(opaque=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(17)
    torch.set_num_threads(1)


def case(name):
    """One of the inputs that came with a report."""
    if not (SHARED / name).exists():
        pytest.skip(f"there is no {SHARED / name}; set NNC_SHARED")
    return SHARED / name


@pytest.fixture
def saved(tmp_path):
    """A file with a state: tensors in safetensors, anything else as PyTorch saves it."""

    def save(state, **options):
        if all(isinstance(value, torch.Tensor) for value in state.values()) and not options:
            safetensors.save_file(state, tmp_path / "m.safetensors")
            return tmp_path / "m.safetensors"
        torch.save(state, tmp_path / "m.pt", **options)
        return tmp_path / "m.pt"

    return save


@pytest.fixture
def through(tmp_path):
    """A model after compressing and decompressing; what was done in between is in ``m.nnr``."""

    def call(path, **options):
        target = tmp_path / "restored" / path.name
        target.parent.mkdir(exist_ok=True)
        nnc_adapters.compress(path, tmp_path / "m.nnr", force=True, **options)
        opaque = {"opaque": True} if options.get("opaque") else {}
        nnc_adapters.decompress(tmp_path / "m.nnr", target, force=True, **opaque)
        return target

    return call


def tensors(path):
    """The tensors in a file, by the keys that lead to them."""
    if path.suffix == ".safetensors":
        return safetensors.load_file(path)
    return dict(_inside(torch.load(path, weights_only=False), ()))


def _inside(value, path):
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from _inside(inner, (*path, str(key)))


def same(first, second):
    return first.dtype == second.dtype and torch.equal(first.view(torch.uint8), second.view(torch.uint8))


# --- exact by meaning ------------------------------------------------------------------------------------------------


def packed(*shape):
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int64).int()


def scales(*shape, size=2e-4):
    return (size * (1 + torch.rand(shape))).float()


SCHEMES = {
    "gptq": lambda: {
        "l.qweight": packed(16, 64),
        "l.qzeros": packed(4, 8),
        "l.g_idx": torch.arange(128).int() // 32,
        "l.scales": scales(4, 64).half(),
    },
    "fp8": lambda: {
        "l.weight": torch.randn(128, 128).to(torch.float8_e4m3fn),
        "l.weight_scale_inv": scales(8, 8),
        "l.input_scale": scales(16),
    },
    "bitsandbytes": lambda: {
        "l.weight": torch.randint(0, 256, (2048, 1)).byte(),
        "l.weight.absmax": scales(64),
        "l.weight.quant_map": torch.linspace(-1, 1, 16),
        "l.weight.nested_absmax": scales(16),
    },
    "int8": lambda: {"l.weight": torch.randint(-127, 128, (64, 64)).char(), "l.SCB": scales(64)},
    "compressed-tensors": lambda: {
        "l.weight_packed": packed(64, 16),
        "l.weight_scale": scales(64, 4).bfloat16(),
        "l.weight_shape": torch.tensor([64, 128]),
    },
    "hqq": lambda: {
        "l.W_q": torch.randint(0, 256, (64, 64)).byte(),
        "l.scale": scales(64, 1).half(),
        "l.zero": torch.randn(64, 1).half(),
    },
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_turns_integers_into_weights_comes_back_exactly(saved, through, scheme):
    state = SCHEMES[scheme]()
    path = saved(state)
    restored = tensors(through(path))
    assert all(same(restored[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["fp8_with_scales.safetensors", "group_scales.safetensors"])
def test_reported_scales_come_back_exactly(through, name):
    before, after = tensors(case(name)), tensors(through(case(name)))
    assert all(same(after[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("name", ["inv_freq", "freqs", "std", "sqrt_recip_alphas_cumprod"])
def test_frequencies_and_divisors_come_back_exactly(saved, through, name):
    values = 1e4 ** -torch.linspace(0, 1, 64)
    state = {f"rotary.{name}": values, "rotary.weight": torch.randn(64, 64)}
    assert same(tensors(through(saved(state)))[f"rotary.{name}"], values)


# --- optimizers ------------------------------------------------------------------------------------------------------


def moments(first, second):
    """A weight, and two moments whose magnitudes no weight has."""
    tiny = 1e-12 * torch.rand(64, 64) ** 8
    return {"w": torch.randn(64, 64), first: 1e-6 * torch.randn(64, 64), second: tiny}


MOMENTS = [
    ("w.exp_avg", "w.exp_avg_sq"),
    ("state.0.exp_avg", "state.0.max_exp_avg_sq"),
    ("w.m", "w.v"),
    ("mu.w", "nu.w"),
    ("w_momentum_buffer", "w_square_avg"),
    ("optimizer.0.a", "optimizer.0.b"),
    ("w_slot_vr", "w_slot_vc"),
]


@pytest.mark.parametrize(("first", "second"), MOMENTS)
def test_what_an_optimizer_keeps_is_exact_by_all_usual_names(saved, through, first, second):
    state = moments(first, second)
    restored = tensors(through(saved(state)))
    assert same(restored[first], state[first])
    assert same(restored[second], state[second])


@pytest.mark.parametrize(("first", "second"), MOMENTS)
def test_what_an_optimizer_keeps_is_left_behind_by_all_usual_names(saved, through, first, second):
    state = moments(first, second)
    path = saved(state)
    with_it = nnc_adapters.compress(path, path.with_suffix(".nnr")).bytes_after
    restored = tensors(through(path, keep_optimizer=False))
    assert not restored[first].any()
    assert not restored[second].any()
    assert restored["w"].any()
    assert path.with_name("m.nnr").stat().st_size < with_it - 4 * 64 * 64


def test_reported_moments_come_back_exactly(through):
    path = case("optimizer.safetensors")
    before, after = tensors(path), tensors(through(path))
    assert all(same(after[name], tensor) for name, tensor in before.items())
    assert not any(tensor.any() for tensor in tensors(through(path, keep_optimizer=False)).values())


def test_the_average_of_weights_is_weights(saved, tmp_path):
    state = {"w": torch.randn(64, 64)}
    path = saved({"model": state, "ema": {"w": torch.randn(64, 64)}})
    assert set(PytorchAdapter().read(path).tensors) == {"model.w", "ema.w"}
    assert nnc_adapters.compress(path, tmp_path / "m.nnr").bytes_after < path.stat().st_size / 2


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [torch.tensor([5]), torch.tensor([2**40]), torch.arange(400), torch.arange(400) << 40]
)
def test_the_names_of_tensors_do_not_depend_on_values(saved, other):
    path = saved({"model": {"w": torch.randn(32, 24)}, "queue": other})
    assert [name for name in PytorchAdapter().read(path).tensors if name.endswith("w")] == ["w"]


def test_reported_files_of_one_structure_have_the_same_names():
    names = [list(PytorchAdapter().read(case(f"prefix_{size}_integer.pth")).tensors) for size in ("small", "large")]
    assert names[0] == names[1] == ["0.weight", "0.bias"]


# --- loading into modules --------------------------------------------------------------------------------------------


def linear():
    return torch.nn.Sequential(torch.nn.Linear(24, 32))


def loaded(state, module=None, **options):
    module = module or linear()
    data = nnc_adapters.pytorch.compress(state)
    return nnc_adapters.pytorch.load(data, module, **options)


def near(module, weight):
    return (module.state_dict()[next(iter(module.state_dict()))] - weight).abs().max() < 0.05


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrapped_modules_fit_plain_ones(prefix):
    weight = torch.randn(32, 24)
    assert near(loaded({f"{prefix}0.weight": weight, f"{prefix}0.bias": torch.randn(32)}), weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_of_plain_modules_fit_wrapped_ones():
    weight = torch.randn(32, 24)
    state = {"0.weight": weight, "0.bias": torch.randn(32)}
    assert near(loaded(state, torch.nn.DataParallel(linear())), weight)
    assert near(loaded(state, torch.compile(linear())), weight)
    inside = torch.nn.Sequential(torch.compile(linear()[0]))
    assert near(loaded(state, inside), weight)


def test_a_module_that_is_called_module_keeps_its_name():
    class Outer(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.module = linear()
            self.head = torch.nn.Linear(24, 32)

    outer = Outer()
    again = loaded(outer.state_dict(), Outer())
    assert near(again, outer.state_dict()["module.0.weight"])


def test_a_state_dict_inside_a_checkpoint_is_found():
    weight = torch.randn(32, 24)
    state = {"0.weight": weight, "0.bias": torch.randn(32)}
    assert near(loaded({"epoch": 3, "state_dict": state}), weight)
    assert near(
        loaded({"net": {"module." + name: tensor for name, tensor in state.items()}, "mean": torch.randn(40)}), weight
    )


def test_of_two_state_dicts_one_is_chosen():
    first, second = torch.randn(32, 24), torch.randn(32, 24)
    checkpoint = {
        "state_dict": {"0.weight": first, "0.bias": torch.randn(32)},
        "state_dict_ema": {"0.weight": second, "0.bias": torch.randn(32)},
    }
    with pytest.raises(ModelError, match=r"prefix=, of 'state_dict\.', 'state_dict_ema\.'"):
        loaded(checkpoint)
    assert near(loaded(checkpoint, prefix="state_dict."), first)
    assert near(loaded(checkpoint, prefix="state_dict_ema."), second)


def test_the_state_dict_of_the_network_is_found_beside_that_of_another():
    weight = torch.randn(32, 24)
    checkpoint = {"a": {"0.weight": weight, "0.bias": torch.randn(32)}, "b": {"x.weight": torch.randn(9, 9)}}
    assert near(loaded(checkpoint), weight)


@pytest.mark.parametrize("name", ["compiled_module_prefix.pth", "two_state_dicts.pth"])
def test_reported_checkpoints_load_into_a_module(tmp_path, name):
    nnc_adapters.compress(case(name), tmp_path / "m.nnr")
    options = {"prefix": "state_dict_ema."} if "two" in name else {}
    module = nnc_adapters.pytorch.load(tmp_path / "m.nnr", linear(), **options)
    before = tensors(case(name))
    expected = next(t for key, t in before.items() if key.endswith("weight") and ("two" not in name or "ema" in key))
    assert near(module, expected)


def test_the_extra_state_of_a_module_is_loaded():
    class Counting(torch.nn.Linear):  # type: ignore[name-defined]
        seen = 0

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    module = Counting(24, 32)
    module.seen = 7
    again = nnc_adapters.pytorch.load(nnc_adapters.pytorch.compress(module), Counting(24, 32))
    assert again.seen == 7


# --- objects beside the tensors --------------------------------------------------------------------------------------


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


# --- TorchScript -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["torchscript_scripted.pt", "torchscript_traced.pt"])
def test_scripts_of_classes_of_the_main_program_are_read(through, name):
    path = case(name)
    before, after = torch.jit.load(path).state_dict(), torch.jit.load(through(path)).state_dict()
    assert list(before) == list(after)
    assert all((before[key] - after[key]).abs().max() < 0.05 for key in before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_class_of_a_script_without_a_module_is_read(tmp_path):
    class Net(torch.nn.Module):  # type: ignore[name-defined]
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


# --- folders of hubs -------------------------------------------------------------------------------------------------


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


# --- safetensors -----------------------------------------------------------------------------------------------------


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


# --- values and sizes ------------------------------------------------------------------------------------------------


def sqnr(before, after):
    """The signal-to-noise ratio in decibel."""
    before, after = before.double(), after.double()
    return float(10 * torch.log10((before**2).sum() / ((before - after) ** 2).sum().clamp(min=1e-300)))


def judged(path, tmp_path):
    """What verify says about the last bitstream."""
    return nnc_adapters.verify(path, tmp_path / "m.nnr")


def small_enough(path, tmp_path):
    """The bitstream is not larger than the file deflated, nor than the file, but for a few bytes."""
    data = path.read_bytes()
    return (tmp_path / "m.nnr").stat().st_size <= min(len(data), len(zlib.compress(data, 9))) + 200


def magnitudes():
    return {f"w{n}": 5 * 10.0**n * torch.randn(64, 96) for n in range(-7, 2)}


def test_tensors_of_every_magnitude_keep_their_quality(saved, through, tmp_path):
    state = magnitudes()
    path = saved(state)
    restored = tensors(through(path))
    assert all(sqnr(state[name], restored[name]) >= 30 for name in state)
    assert (tmp_path / "m.nnr").stat().st_size < path.stat().st_size / 4
    assert judged(path, tmp_path).accepted


def test_verify_rejects_a_destroyed_tensor(saved, tmp_path):
    path = saved(magnitudes())
    nnc_adapters.compress(path, tmp_path / "m.nnr", parameters=nnc_core.CodingParameters(qp=-38))
    report = judged(path, tmp_path)
    assert not report.accepted
    assert {t.name for t in report.tensors if t.problem} >= {"w-7", "w-6", "w-5"}


def test_the_product_of_young_lora_factors_keeps_its_quality(saved, through):
    state = {"a.lora_A.weight": 0.05 * torch.randn(8, 64), "a.lora_B.weight": 2e-4 * torch.randn(64, 8)}
    restored = tensors(through(saved(state)))
    before, after = (s["a.lora_B.weight"] @ s["a.lora_A.weight"] for s in (state, restored))
    assert (before - after).norm() < 0.015 * before.norm()


EXACT_BY_VALUE = {
    "ones": lambda: torch.ones(40),
    "halves": lambda: torch.arange(30) / 2,
    "counts": lambda: torch.arange(64.0).reshape(8, 8),
    "flags": lambda: torch.randint(0, 2, (16, 16)).float(),
    "mask of half precision": lambda: torch.randint(0, 2, (64, 64)).half(),
    "signs": lambda: torch.randint(0, 2, (64, 64)).float() * 2 - 1,
    "zeros": lambda: torch.zeros(64, 64),
}


@pytest.mark.parametrize("what", EXACT_BY_VALUE)
def test_whole_numbers_and_flags_come_back_exactly(saved, through, tmp_path, what):
    state = {"w": EXACT_BY_VALUE[what]()}
    path = saved(state)
    assert same(tensors(through(path))["w"], state["w"])
    assert small_enough(path, tmp_path)
    assert judged(path, tmp_path).accepted


def test_pruned_weights_and_their_masks_survive(saved, through, tmp_path):
    layer = torch.nn.Linear(64, 48)
    prune.l1_unstructured(layer, "weight", amount=0.6)
    path = saved(dict(layer.state_dict()), _use_new_zipfile_serialization=True)
    restored = tensors(through(path))
    assert torch.equal(restored["weight_mask"], layer.weight_mask)
    assert judged(path, tmp_path).accepted


@pytest.mark.parametrize("pattern", ["scattered", "rows", "two of four"])
def test_zeros_stay_zeros(saved, through, tmp_path, pattern):
    weight = torch.randn(64, 64)
    if pattern == "scattered":
        weight[torch.rand(64, 64) < 0.9] = 0
    elif pattern == "rows":
        weight[::3] = 0
    else:
        smallest = weight.abs().reshape(64, 16, 4).argsort(-1)[..., :2]
        weight = weight.reshape(64, 16, 4).scatter(-1, smallest, 0.0).reshape(64, 64)
    path = saved({"w": weight})
    restored = tensors(through(path))["w"]
    assert not restored[weight == 0].any()
    assert judged(path, tmp_path).accepted
    assert small_enough(path, tmp_path)


@pytest.mark.parametrize("value", [-torch.inf, -1e4, torch.finfo(torch.float16).min])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masks_take_few_bytes(saved, through, tmp_path, value, dtype):
    mask = torch.full((128, 128), value, dtype=getattr(torch, dtype)).triu(1)
    path = saved({"mask": mask, "w": torch.randn(16, 16)})
    assert same(tensors(through(path))["mask"], mask)
    assert (tmp_path / "m.nnr").stat().st_size < 1700
    assert small_enough(path, tmp_path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_one_strange_value_does_not_spoil_a_tensor(saved, through, tmp_path, value, dtype):
    weight = torch.randn(64, 64, dtype=torch.float32).to(getattr(torch, dtype))
    weight[3, 4] = value
    path = saved({"w": weight})
    restored = tensors(through(path))["w"]
    assert same(restored[3, 4].reshape(1), weight[3, 4].reshape(1))
    regular = torch.ones(64, 64, dtype=torch.bool)
    regular[3, 4] = False
    assert sqnr(weight[regular], restored[regular]) > 30
    assert (tmp_path / "m.nnr").stat().st_size < path.stat().st_size * 0.6


INTEGERS = {
    "index": lambda: torch.arange(64 * 64).int().reshape(64, 64) % 64,
    "gaussian bytes": lambda: (30 * torch.randn(128, 128)).clamp(-128, 127).to(torch.int8),
    "few levels": lambda: (2 * torch.randn(128, 128)).to(torch.int8),
    "bytes around 128": lambda: (128 + 20 * torch.randn(128, 128)).clamp(0, 255).to(torch.uint8),
    "bytes around 128 with few levels": lambda: (128 + 2 * torch.randn(128, 128)).to(torch.uint8),
    "uniform bytes": lambda: torch.randint(0, 256, (128, 128)).to(torch.uint8),
    "large numbers": lambda: torch.arange(4096) << 40,
    "positions": lambda: torch.arange(512)[None],
}


@pytest.mark.parametrize("what", INTEGERS)
def test_integers_never_take_more_bytes_than_deflated_or_raw(saved, through, tmp_path, what):
    state = {"w": INTEGERS[what]()}
    path = saved(state)
    assert same(tensors(through(path))["w"], state["w"])
    assert small_enough(path, tmp_path)


def test_half_precision_is_never_widened(saved, through, tmp_path):
    state = {"l.qweight": packed(64, 64), "l.scales": (2e-4 * torch.rand(64, 64)).half()}
    path = saved(state)
    assert same(tensors(through(path))["l.scales"], state["l.scales"])
    assert small_enough(path, tmp_path)


VALUES = ["nine_magnitudes", "young_lora", "fp8_with_scales", "group_scales", "whole_numbers", "pruned_zeros",
          "optimizer", "masks", "one_nan", "integers"]  # fmt: skip


@pytest.mark.parametrize("name", [*(f"{name}.safetensors" for name in VALUES), "pruned_with_mask.pth"])
def test_reported_values_are_small_and_accepted(through, tmp_path, name):
    path = case(name)
    before, after = tensors(path), tensors(through(path))
    assert small_enough(path, tmp_path)
    assert judged(path, tmp_path).accepted
    for key, tensor in before.items():
        if not tensor.dtype.is_floating_point or key.endswith("mask") or name.startswith(("whole", "fp8")):
            assert same(after[key], tensor), key
        elif tensor.isfinite().all():
            assert sqnr(tensor, after[key]) > 29.5, key
            assert not after[key][tensor == 0].any(), key
