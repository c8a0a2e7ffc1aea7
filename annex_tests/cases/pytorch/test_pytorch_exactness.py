"""What must not change in files of PyTorch: scales, frequencies, optimizer state, masks; and what becomes small."""

from __future__ import annotations

import zlib

import pytest

import nnc_adapters
import nnc_core
from annex_tests.support.torch_files import case, prune, same, tensors, torch
from nnc_adapters.pytorch import PytorchAdapter


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
