"""No model becomes larger than deflated, however many small tensors it has; rules overrule what is exact."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_adapters
import nnc_core
from annex_tests.support.program import checked
from nnc_core import CodingParameters, Rule

RNG = np.random.default_rng(23)
TYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "uint8": "F8_E4M3"}
MOST = 320  # bytes above deflate: the description, and two tensors that are there to be seen


def saved(path: Path, tensors: dict[str, NDArray[np.generic]]) -> Path:
    header, data = {}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        kind = TYPES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def uniform(*shape: int) -> NDArray[np.int8]:
    return RNG.integers(-128, 128, shape, np.int8)


def scales(*shape: int) -> NDArray[np.float32]:
    return np.abs(RNG.standard_normal(shape)).astype("f4") / 1000  # type: ignore[return-value]


LAYERS = {
    "int8 and a scale for each row": lambda: {"weight": uniform(32, 32), "weight_scale": scales(32)},
    "int8 and one scale": lambda: {"weight": uniform(24, 24), "weight_scale": scales(1)},
    "packed numbers and scales of groups": lambda: {
        "qweight": RNG.integers(-(2**31), 2**31 - 1, (4, 64), np.int32),
        "scales": scales(2, 64).astype("f2"),
    },
    "float8 and scales of blocks": lambda: {
        "weight": RNG.integers(0, 120, (48, 48), np.uint8),
        "weight_scale_inv": scales(6, 6),
    },
}


@pytest.mark.parametrize("kind", LAYERS)
def test_many_scales_cost_no_more_than_deflated(tmp_path: Path, kind: str) -> None:
    tensors = {f"layers.{i}.{name}": array for i in range(60) for name, array in LAYERS[kind]().items()}  # type: ignore[attr-defined]
    path = saved(tmp_path / "m.safetensors", tensors)
    nnc_adapters.compress(path, tmp_path / "m.nnr")
    whole = path.read_bytes()
    assert (tmp_path / "m.nnr").stat().st_size < min(len(whole), len(zlib.compress(whole, 9))) + MOST
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == whole


def test_a_few_scales_are_tensors_of_the_bitstream(tmp_path: Path) -> None:
    tensors = {"weight": uniform(64, 64), "weight_scale": scales(64)}
    nnc_adapters.compress(saved(tmp_path / "m.safetensors", tensors), tmp_path / "m.nnr")
    with nnc_core.open(tmp_path / "m.nnr") as file:
        assert list(file) == ["weight_scale"]


def test_what_stays_in_the_topology_can_be_overruled(tmp_path: Path) -> None:
    tensors = {f"{i}.{name}": array for i in range(20) for name, array in LAYERS["int8 and one scale"]().items()}  # type: ignore[attr-defined]
    tensors |= {f"{i}.scales": scales(64) for i in range(20)}
    path = saved(tmp_path / "m.safetensors", tensors)
    parameters = CodingParameters(rules=(Rule.parse("9.scales=exact=0"),))
    nnc_adapters.compress(path, tmp_path / "m.nnr", parameters=parameters)
    restored = nnc_adapters.load_tensors(tmp_path / "m.nnr")
    changed = {name for name in restored if not np.array_equal(restored[name], tensors[name])}
    assert changed == {"9.scales", "19.scales"}


@pytest.mark.parametrize("prefix", ["optimizer.state", "optimizer"])
def test_a_rule_has_optimizer_state_quantized(tmp_path: Path, prefix: str) -> None:
    names = {name: f"{prefix}.0.{name}" for name in ("exp_avg", "exp_avg_sq")}
    tensors = {"w": RNG.standard_normal((64, 64)).astype("f4"), **{n: scales(64, 64) for n in names.values()}}
    path = saved(tmp_path / "m.safetensors", tensors)
    rule = ["--rule", "exp_avg$=exact=0"]
    checked("compress", path, "-o", tmp_path / "m.nnr", *rule)
    restored = nnc_adapters.load_tensors(tmp_path / "m.nnr")
    assert np.array_equal(restored[names["exp_avg_sq"]], tensors[names["exp_avg_sq"]])
    error = restored[names["exp_avg"]] - tensors[names["exp_avg"]]
    assert 0 < np.linalg.norm(error) < 0.05 * np.linalg.norm(tensors[names["exp_avg"]])
    checked("verify", path, tmp_path / "m.nnr", *rule)
    checked("verify", path, tmp_path / "m.nnr", code=1)
