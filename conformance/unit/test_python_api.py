"""The Python interface as people type it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_core
from nnc_core import CodingParameters, ModelError

_RANDOM = np.random.default_rng(5)
WEIGHT = _RANDOM.normal(0, 0.05, (16, 8)).astype(np.float32)
COUNTS = np.arange(10, dtype=np.int32)
TENSORS = {"w": WEIGHT, "counts": COUNTS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "weights.nnr"
    assert nnc_core.write(target, TENSORS) == target.stat().st_size
    return target


def test_settings_are_the_fields_of_the_parameters() -> None:
    by_name = nnc_core.encode(TENSORS, qp=-20, dq_flag=False)
    assert by_name == nnc_core.encode(TENSORS, parameters=CodingParameters(qp=-20, dq_flag=False))
    assert by_name != nnc_core.encode(TENSORS)


def test_settings_and_parameters_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="parameters and qp"):
        nnc_core.encode(TENSORS, parameters=CodingParameters(), qp=-20)
    with pytest.raises(TypeError, match="quality"):
        nnc_core.encode(TENSORS, quality=3)


def test_a_dictionary_is_written_to_a_path_or_a_stream(path: Path) -> None:
    stream = io.BytesIO()
    nnc_core.write(stream, TENSORS)
    assert stream.getvalue() == path.read_bytes() == nnc_core.encode(TENSORS)


def test_a_file_that_could_not_be_written_to_its_end_is_not_there(tmp_path: Path, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ModelError):
        nnc_core.write(path, {**TENSORS, "empty": np.empty((0, 3), np.float32)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "memory"])
def test_a_bitstream_is_decoded_and_opened_in_whatever_form_it_is(path: Path, kind: str) -> None:
    with path.open("rb") as file:
        forms: dict[str, Any] = {
            "path": path,
            "text": str(path),
            "bytes": path.read_bytes(),
            "file": file,
            "memory": io.BytesIO(path.read_bytes()),
        }
        np.testing.assert_array_equal(nnc_core.decode(forms[kind])["counts"], COUNTS)
        if kind == "memory":
            forms["memory"].seek(0)
        with nnc_core.open(forms[kind]) as opened:
            assert list(opened.keys()) == ["w", "counts"]
            np.testing.assert_array_equal(opened["counts"], COUNTS)


def test_an_open_file_shows_its_tensors_and_their_sizes(path: Path) -> None:
    with nnc_core.open(path) as file:
        lines = repr(file).splitlines()
        assert lines[0] == f"<NnrFile: 2 tensors, {path.stat().st_size} bytes>"
        assert lines[1] == f"  w: float32 [16, 8], {file.tensors['w'].size} bytes"
    with nnc_core.open(nnc_core.encode({f"t{i}": COUNTS for i in range(50)})) as many:
        assert len(repr(many).splitlines()) < 25
        assert repr(many).endswith("... and 30 more")


def test_tensors_slices_and_metadata_are_had_under_the_names_that_safetensors_gives_them(path: Path) -> None:
    with nnc_core.open(path) as file:
        whole = file.get_tensor("w")
        np.testing.assert_array_equal(whole, file["w"])
        part = file.get_slice("w")
        assert (part.shape, part.dtype) == ((16, 8), "float32")
        np.testing.assert_array_equal(part[2:4, ::2], whole[2:4, ::2])
        assert file.metadata() == {
            "bytes": path.stat().st_size,
            "general_profile_idc": 1,
            "topology_storage_format": None,
        }
        with pytest.raises(KeyError):
            file.get_slice("no such tensor")


def test_tensors_of_pytorch_are_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = torch.from_numpy(WEIGHT.copy())
    given = {
        "tensor": values,
        "parameter": torch.nn.Parameter(values),
        "turned": values.t(),
        "brain": values.to(torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
    }
    found = nnc_core.decode(nnc_core.encode(given))
    for name, array in (("tensor", WEIGHT), ("parameter", WEIGHT), ("turned", WEIGHT.T), ("brain", WEIGHT)):
        np.testing.assert_allclose(found[name], array, atol=0.01)
    assert found["flags"].tolist() == [1, 0]
    assert found["scalar"].tolist() == [2.5]
    with pytest.raises(ModelError, match="complex"):
        nnc_core.encode({"complex": torch.zeros(4, dtype=torch.complex64)})


def test_what_has_no_numbers_or_no_names_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(ModelError, match="'x': cannot be converted to an array"):
        nnc_core.encode({"x": torch.empty(4, device="meta")})
    for nameless in ([WEIGHT], WEIGHT, torch.from_numpy(WEIGHT.copy())):
        with pytest.raises(ModelError, match="must be a dictionary by name"):
            nnc_core.encode(nameless)  # type: ignore[arg-type]


def test_numbers_of_other_types_than_numpys_are_taken_as_they_are() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    found = nnc_core.decode(nnc_core.encode({"b": WEIGHT.astype(ml_dtypes.bfloat16), "list": [[1.5, 2.5]]}))
    np.testing.assert_allclose(found["b"], WEIGHT, atol=0.01)
    assert found["list"].tolist() == [[1.5, 2.5]]


def test_what_the_format_lacks_is_carried_as_its_nearest_or_refused() -> None:
    found = nnc_core.decode(nnc_core.encode({"scalar": np.float32(0.5), "flags": np.array([[True], [False]])}))
    assert found["scalar"].shape == (1,)
    np.testing.assert_array_equal(found["flags"], np.array([[1], [0]], np.int8), strict=True)
    for strange in (np.empty((0, 4), np.float32), np.array(["text"]), np.array([1j]), [[1], [2, 3]]):
        with pytest.raises(ModelError, match="x"):
            nnc_core.encode({"x": strange})


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    data = nnc_core.encode({"layer.weight": np.eye(4, dtype=np.float32)})
    with nnc_core.open(data) as file:
        for ask in (file.__getitem__, file.get_slice, file.decode):
            with pytest.raises(KeyError, match=r"no tensor 'layer\.weights'; did you mean 'layer\.weight'\?"):
                ask("layer.weights")
        with pytest.raises(KeyError, match="topology"):
            file["head"]
        assert file.get("head") is None
