"""The codecs that zarr and numcodecs find by name."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnc_adapters.containers.arrays import ArrayCoder
from nnc_core.errors import BitstreamError, ModelError

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
numcodecs = pytest.importorskip("numcodecs", reason="numcodecs is not installed")

EXACT = ["i1", "u1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8"]
FLOATS = ["<f2", "<f4", ">f4", "f8"]
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def registered() -> None:
    """As the entry points do where the package is installed."""
    from nnc_adapters.containers.numcodecs_codec import Nnc
    from nnc_adapters.containers.zarr_codec import NncCodec

    zarr.registry.register_codec("nnc", NncCodec)
    numcodecs.registry.register_codec(Nnc)


def weights(dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(50, 70)) * (1 if "f" in dtype else 50)
    return np.clip(values, 0 if "u" in dtype else -100, 100).astype(dtype)


def created(store: Any, array: np.ndarray, chunks: tuple[int, ...] = (32, 40), **options: Any) -> np.ndarray:
    made = zarr.create_array(store, shape=array.shape, chunks=chunks, dtype=array.dtype, **options)
    made[...] = array
    found: np.ndarray = zarr.open_array(store, mode="r")[...]
    return found


def v3(qp: int = -38) -> dict[str, Any]:
    return {"serializer": {"name": "nnc", "configuration": {"qp": qp}}, "compressors": None}


@pytest.mark.parametrize("dtype", EXACT)
def test_zarr_keeps_integers_exactly(tmp_path: Path, dtype: str) -> None:
    array = weights(dtype)
    np.testing.assert_array_equal(created(tmp_path, array, **v3()), array)


@pytest.mark.parametrize("dtype", FLOATS)
def test_zarr_rounds_floats_to_the_step_size(tmp_path: Path, dtype: str) -> None:
    array = weights(dtype)
    found = created(tmp_path, array, **v3())
    error = np.abs(found.astype(np.float64) - array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert 0 < error.max() < 0.01


def test_the_metadata_name_the_codec_and_its_parameters(tmp_path: Path) -> None:
    created(tmp_path, weights("<f4"), **v3(-30))
    (codec,) = json.loads((tmp_path / "zarr.json").read_text())["codecs"]
    assert codec == {"name": "nnc", "configuration": {"qp": -30, "qp_density": 2, "dq_flag": True}}


def test_a_coarser_qp_makes_smaller_chunks(tmp_path: Path) -> None:
    sizes = []
    for qp in (-38, -20):
        created(tmp_path / str(qp), weights("<f4"), **v3(qp))
        sizes.append(sum(file.stat().st_size for file in (tmp_path / str(qp) / "c").rglob("*") if file.is_file()))
    assert sizes[1] < sizes[0] < weights("<f4").nbytes // 2


def test_a_chunk_is_a_bitstream_of_its_own(tmp_path: Path) -> None:
    array = weights("<f4")
    created(tmp_path, array, **v3())
    chunk = ArrayCoder().decode((tmp_path / "c" / "0" / "1").read_bytes())
    np.testing.assert_allclose(chunk[:, :30], array[:32, 40:], atol=0.01)


def test_zarr_works_with_scalars_transposition_and_shards(tmp_path: Path) -> None:
    array = weights("<i2")
    assert created(tmp_path / "scalar", array[0, 0], (), **v3()) == array[0, 0]
    transposed = created(tmp_path / "order", array, filters=[zarr.codecs.TransposeCodec(order=(1, 0))], **v3())
    np.testing.assert_array_equal(transposed, array)
    sharded = created(tmp_path / "shards", array, (16, 20), shards=(32, 40), **v3())
    np.testing.assert_array_equal(sharded, array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [*EXACT, *FLOATS])
def test_zarr_v2_finds_the_codec_of_numcodecs(tmp_path: Path, dtype: str, order: str) -> None:
    array = weights(dtype)
    codec = numcodecs.get_codec({"id": "nnc", "qp": -38})
    found = created(tmp_path, array, zarr_format=2, compressors=codec, order=order)
    assert found.dtype == array.dtype
    np.testing.assert_allclose(found.astype("f8"), array, rtol=0, atol=0.01 if "f" in dtype else 0)
    assert json.loads((tmp_path / ".zarray").read_text())["compressor"] == codec.get_config()


def test_numcodecs_decodes_into_an_array() -> None:
    codec = numcodecs.get_codec({"id": "nnc"})
    array = weights("i4")
    out = np.empty_like(array)
    assert codec.decode(codec.encode(array), out=out) is out
    np.testing.assert_array_equal(out, array)
    assert codec == numcodecs.get_codec(codec.get_config())


def test_what_nnr_cannot_express_is_refused(tmp_path: Path) -> None:
    for dtype in ("?", "c8", "S4"):
        with pytest.raises(TypeError, match="NNR codes"):
            ArrayCoder().encode(np.zeros(4, dtype))
    with pytest.raises(TypeError, match="NNR codes"):
        created(tmp_path, np.zeros((4, 4), bool), (2, 2), **v3())
    with pytest.raises(ModelError, match="integers beyond"):
        ArrayCoder().encode(np.array([0, 1 << 40]))
    with pytest.raises(ValueError, match="qp is"):
        created(tmp_path, weights("f4"), **v3(100_000))


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    created(tmp_path, weights("<f4"), **v3())
    chunk = tmp_path / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(BitstreamError):
        zarr.open_array(tmp_path, mode="r")[...]
    chunk.write_bytes(ArrayCoder().encode(np.zeros((2, 2), np.float32)))
    with pytest.raises(ModelError, match="a chunk of shape"):
        zarr.open_array(tmp_path, mode="r")[...]
    chunk.write_bytes(ArrayCoder().encode(np.full((32, 40), np.nan, np.float16)))
    with pytest.raises(ModelError, match="a chunk of type float16, expected float32"):
        zarr.open_array(tmp_path, mode="r")[...]


def test_values_that_do_not_fill_the_given_array_are_refused() -> None:
    codec = numcodecs.get_codec({"id": "nnc"})
    with pytest.raises(ModelError, match="values of 12 bytes, expected 16"):
        codec.decode(codec.encode(np.arange(3, dtype="i4")), out=np.empty(4, "i4"))


def test_what_half_precision_cannot_hold_becomes_its_largest_number() -> None:
    nnc_core = pytest.importorskip("nnc_core")
    found = ArrayCoder().decode(nnc_core.encode({"<f2": np.array([1e30, -np.inf, 1], np.float32)}))
    np.testing.assert_array_equal(found, np.array([65504, -np.inf, 1], np.float16), strict=True)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"<f4": np.zeros(3, np.float32), "<f2": np.zeros(3, np.float32)}, "2 tensors"),
        ({"weight": np.zeros(3, np.float32)}, "not called like a data type"),
        ({"O": np.zeros(3, np.float32)}, "not called like a data type"),
        ({"|u1": np.zeros(3, np.float32)}, "expected uint8"),
        ({"|u1": np.array([256])}, "cannot hold"),
    ],
)
def test_bitstreams_that_are_not_arrays_of_ours_are_refused(tensors: dict[str, np.ndarray], message: str) -> None:
    nnc_core = pytest.importorskip("nnc_core")
    with pytest.raises(ModelError, match=message):
        ArrayCoder().decode(nnc_core.encode(tensors))


@pytest.mark.parametrize("group", ["zarr.codecs", "numcodecs.codecs"])
def test_the_entry_points_lead_to_the_codecs(group: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"].get(group)
    if points is None:
        pytest.skip("the project does not declare its codecs")
    found = EntryPoint("nnc", points["nnc"], group).load()
    assert found.__name__ in ("Nnc", "NncCodec")
