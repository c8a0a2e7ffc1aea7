"""Rate control: targets are met and never exceeded, levels trade time for bytes, predictions come true."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from conformance.bench import sizes
from nnc_core import CodingParameters, ModelError, SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

MODEL: dict[str, NDArray[Any]] = {**dict(sizes.dense()), **dict(sizes.vectors()), "steps": np.arange(300)}
WEIGHTS = [name for name, array in MODEL.items() if array.ndim > 1]
BYTES = sum(array.nbytes for array in MODEL.values())
TOPOLOGY = Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"a graph")


def encoded(**parameters: Any) -> bytes:
    return nnc_core.encode(MODEL, parameters=CodingParameters(**parameters), topology=TOPOLOGY)


def pooled(data: bytes) -> float:
    """The SQNR of all weights together, in dB."""
    decoded = nnc_core.decode(data)
    power = sum(float(np.square(MODEL[name], dtype=np.float64).sum()) for name in WEIGHTS)
    return 10 * np.log10(power / sum(float(np.square(MODEL[n] - decoded[n], dtype=np.float64).sum()) for n in WEIGHTS))


@pytest.mark.parametrize("share", [0.3, 0.2, 0.1, 0.05])
@pytest.mark.parametrize("profile", [0, 1])
def test_a_target_size_is_never_exceeded_and_half_a_percent_is_left_at_most(share: float, profile: int) -> None:
    target = int(share * BYTES)
    data = encoded(target_size=target, general_profile_idc=profile)
    assert 0.995 * target <= len(data) <= target
    decoded = nnc_core.decode(data)
    assert list(decoded) == list(MODEL)
    np.testing.assert_array_equal(decoded["steps"], MODEL["steps"])


def test_a_target_size_holds_for_blocks_too() -> None:
    weight, bias, target = sizes.bell(3, 40, 30), sizes.bell(4, 40), 900
    info: Any = {"parameter_type": {"w": "fc.weight", "b": "fc.bias"}, "block_identifier": {"w": "l", "b": "l"}}
    p = CodingParameters(target_size=target, blocks_flag=True)
    data = nnc_core.encode({"w": weight, "b": bias}, parameters=p, model_info=info)
    assert len(nnc_core.NnrFile(data).units) == 3
    assert 0.98 * target <= len(data) <= target


def test_a_target_size_in_words() -> None:
    exact = encoded(target_size=40_000)
    assert encoded(target_size="40kB") == encoded(target_size="0.04 MB") == exact
    assert 0.0995 * BYTES <= len(encoded(target_size="10%")) <= 0.1 * (BYTES + 7)
    assert CodingParameters(target_size="2 MiB").target_size == 2 << 20


def test_a_target_that_is_out_of_reach_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"does not fit into 100 bytes: the least it can take is \d+, of which \d+ are not"
    ):
        encoded(target_size=100)
    rest = len(nnc_core.encode({n: a for n, a in MODEL.items() if n not in WEIGHTS}, topology=TOPOLOGY))
    with pytest.raises(ModelError, match=rf"does not fit into {rest + 100} bytes") as refusal:
        encoded(target_size=rest + 100)
    least = int(re.findall(r"least it can take is (\d+)", str(refusal.value))[0])
    assert len(encoded(target_size=least)) == least
    with pytest.raises(ModelError, match="does not fit into"):
        encoded(target_size=least - 1)


def test_bits_per_weight_that_are_out_of_reach_are_refused() -> None:
    with pytest.raises(ModelError, match=r"the least it can take is \d+"):
        encoded(bits_per_weight=0.01)


@pytest.mark.parametrize("bits", [6, 3.5, 1.5])
def test_weights_take_the_bits_that_are_asked_for_at_most(bits: float) -> None:
    data = encoded(bits_per_weight=bits)
    taken = sum(nnc_core.NnrFile(data).tensors[name].size for name in WEIGHTS)
    count = sum(MODEL[name].size for name in WEIGHTS)
    assert 0.995 * bits <= 8 * taken / count <= bits


@pytest.mark.parametrize("sqnr", [50, 33.3, 20, 12])
@pytest.mark.parametrize("dq_flag", [False, True])
def test_weights_reach_the_sqnr_that_is_asked_for(sqnr: float, dq_flag: bool) -> None:
    assert sqnr <= pooled(encoded(sqnr=sqnr, dq_flag=dq_flag)) < sqnr + 0.05


@pytest.mark.parametrize("sqnr", [30, 15])
def test_the_highest_level_tunes_each_tensor(sqnr: float) -> None:
    usual, tuned = encoded(sqnr=sqnr, level=8), encoded(sqnr=sqnr, level=9)
    assert pooled(tuned) >= sqnr
    assert len(tuned) < len(usual)


def test_a_target_leaves_vectors_as_they_are_by_default() -> None:
    coarse, usual = (nnc_core.plan(SourceModel(MODEL), CodingParameters(sqnr=s)) for s in (15, 40))
    vectors = MODEL.keys() - set(WEIGHTS)
    assert {n: coarse.tensors[n].qp for n in vectors} == {n: usual.tensors[n].qp for n in vectors}


def test_higher_levels_take_fewer_bytes_at_the_same_quality() -> None:
    found = [len(encoded(level=level)) for level in (1, 3, 5, 7)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)
    assert encoded(level=5) == encoded()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_show_in_a_plan(threads: int) -> None:
    p = CodingParameters(target_size=30_000)
    assert nnc_core.plan(SourceModel(MODEL), p, threads=threads) == nnc_core.plan(SourceModel(MODEL), p)


@pytest.mark.parametrize("parameters", [{}, {"sqnr": 20}, {"lossless": True}, {"qp": -30}])
def test_predictions_come_true(parameters: dict[str, Any]) -> None:
    model = SourceModel({**MODEL, "large": sizes.bell(99, 300, 400)})
    plan = nnc_core.plan(model, CodingParameters(**parameters))
    predicted = nnc_core.predict(model, plan)
    data = nnc_core.encode(model.tensors, plan=plan)
    infos, decoded = nnc_core.NnrFile(data).tensors, nnc_core.decode(data)
    for name, (size, sqnr) in predicted.items():
        assert abs(size - infos[name].size) <= 30 + 0.02 * infos[name].size, name
        if plan.tensors[name].exact:
            assert sqnr == np.inf
            np.testing.assert_array_equal(decoded[name], model.tensors[name])
        else:
            error = np.square(model.tensors[name] - decoded[name], dtype=np.float64).sum()
            true = 10 * np.log10(np.square(model.tensors[name], dtype=np.float64).sum() / error)
            assert abs(sqnr - true) < 0.5, name


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_lossless_keeps_every_bit_in_fewer_bytes(dtype: type) -> None:
    tensors = {name: array.astype(dtype) for name, array in MODEL.items() if array.dtype.kind == "f"}
    data = nnc_core.encode(tensors, parameters=CodingParameters(lossless=True))
    decoded = nnc_core.decode(data)
    for name, array in tensors.items():
        assert decoded[name].dtype == dtype
        assert decoded[name].tobytes() == array.tobytes()
    assert len(data) < 0.95 * sum(array.nbytes for array in tensors.values())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sqnr": 30, "qp": -30}, "qp and sqnr are mutually exclusive"),
        ({"sqnr": 30, "target_size": 3}, "sqnr and target_size are mutually exclusive"),
        ({"lossless": True, "bits_per_weight": 3}, "bits_per_weight and lossless are mutually exclusive"),
        ({"sqnr": -3}, "sqnr is -3, expected a number above 0"),
        ({"bits_per_weight": float("nan")}, "bits_per_weight is nan"),
        ({"target_size": 0}, "target_size is 0"),
        ({"target_size": "much"}, "target_size is 'much', expected something like 250000, 2.5MB or 10%"),
        ({"target_size": "3 parsecs"}, "target_size is '3 parsecs'"),
        ({"target_size": "0%"}, "target_size is 0"),
        ({"level": 0}, r"level is 0, expected 1\.\.9"),
        ({"level": 10}, "level is 10"),
    ],
)
def test_targets_that_make_no_sense_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodingParameters(**parameters)


@pytest.mark.parametrize(
    "parameters", [{"sqnr": "loud"}, {"bits_per_weight": []}, {"target_size": 3.5}, {"level": "9"}]
)
def test_targets_of_another_type_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="expected a"):
        CodingParameters(**parameters)
