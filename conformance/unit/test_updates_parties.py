"""Predictive residuals (clause 9.1.6) and several senders: both ends agree, whatever is sent."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import nnc_core
from conformance.support.chains import Model, assert_equal
from nnc_core import LossyOptions, NnrFile, UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.coder.encoder import Coding
from nnc_core.coder.payload import Effort
from nnc_core.updates import Predict, fold_batch_norm, unfold_batch_norm

ROW = UpdateOptions(
    lossy=LossyOptions(qp=-48, vector_qp=-60, dq_flag=False),
    coding=Coding(
        qp_density=2, temporal_context_modeling_flag=True, effort=Effort(hist_dep_sig_prob_enabled_flag=True)
    ),
    predict="always",
    manifest=False,
)
"""The configuration of the rows of Part 18, Table 2, that have predictive residuals."""


def model(seed: int = 0, dtype: str = "float32") -> Model:
    rng = np.random.default_rng(seed)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return {
        "features.weight": rng.normal(0, 0.1, (8, 4, 3, 3)).astype(kind),
        "classifier.weight": rng.normal(0, 0.05, (20, 16)).astype(kind),
        "classifier.bias": rng.normal(0, 0.5, 20).astype(kind),
        "steps": np.asarray(seed, np.int64),
    }


def moving(base: Model, round_: int, party: int = 0) -> Model:
    """The model after a round: the weights go on in the direction they took, with some noise."""
    after = {"steps": base["steps"] + 1}
    for name in base.keys() - after.keys():
        steady = np.random.default_rng(party + 7).normal(0, 1e-2, base[name].shape)
        noise = np.random.default_rng(100 * round_ + party).normal(0, 1e-3, base[name].shape)
        after[name] = (base[name].astype(np.float64) + steady + noise).astype(base[name].dtype)
    return {name: after[name] for name in base}


def flags(update: bytes) -> tuple[bool, set[str]]:
    """Whether an update has residuals, and the tensors that have units."""
    file = NnrFile(update)
    assert file.bitstream.mps is not None
    return file.bitstream.mps.nnr_pre_flag, set(file)


@pytest.mark.parametrize("predict", ["cheaper", "always"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_residuals_give_what_the_sender_has_over_stops_and_restarts(
    predict: Predict, dtype: str, tmp_path: Path
) -> None:
    base = model(dtype=dtype)
    options = UpdateOptions(predict=predict)
    encoder, decoder, new = UpdateEncoder(base, options), UpdateDecoder(base), base
    residual = []
    for number in range(6):
        new = moving(new, number)
        update = encoder.encode(new, restart=number == 4)
        encoder.commit(update)
        decoder.apply(update)
        residual.append(flags(update)[0])
        assert_equal(dict(decoder.model), dict(encoder.model))
        encoder.save(tmp_path / "sender")
        decoder.save(tmp_path / "receiver")
        encoder = UpdateEncoder.load(tmp_path / "sender", encoder.model, options)
        decoder = UpdateDecoder.load(tmp_path / "receiver", decoder.model)
    if predict == "always":
        assert residual == [True] * 6
    else:
        assert (residual[0], residual[4], any(residual)) == (False, False, True)


def test_a_steady_course_is_cheaper_with_residuals() -> None:
    sizes = {}
    for predict in ("never", "cheaper"):
        base = model()
        encoder, new = UpdateEncoder(base, UpdateOptions(lossy=LossyOptions(step=0.2), predict=predict)), base
        for number in range(5):
            new = moving(new, number)
            update = encoder.encode(new)
            encoder.commit(update)
            sizes[predict] = sizes.get(predict, 0) + len(update)
    assert sizes["cheaper"] < 0.95 * sizes["never"]


def test_a_tensor_without_a_residual_goes_on_as_it_did() -> None:
    base = {"w": np.zeros((4, 6), np.float32), "v": np.zeros((4, 6), np.float32)}
    options = UpdateOptions(lossy=LossyOptions(qp=-64, dq_flag=False), predict="always")
    encoder, decoder = UpdateEncoder(base, options), UpdateDecoder(base)
    for number in (1, 2, 3):
        update = encoder.encode({"w": np.full((4, 6), number, np.float32), "v": np.full((4, 6), -number, np.float32)})
        encoder.commit(update)
        decoder.apply(update)
        assert flags(update) == (True, {"w", "v"} if number == 1 else set())
        assert decoder.model["w"].tolist() == [[number] * 6] * 4
        assert decoder.model["v"].tolist() == [[-number] * 6] * 4


def test_a_plain_update_without_a_unit_ends_the_course_of_a_tensor() -> None:
    base = {"w": np.zeros((4, 6), np.float32), "v": np.zeros((4, 6), np.float32)}
    lossy = LossyOptions(qp=-64, dq_flag=False)
    encoder, decoder = UpdateEncoder(base, UpdateOptions(lossy=lossy, predict="always")), UpdateDecoder(base)
    one = np.ones((4, 6), np.float32)
    for number, new in enumerate(({"w": one, "v": one}, {"w": one, "v": 2 * one}, {"w": one, "v": 3 * one})):
        encoder.options = UpdateOptions(lossy=lossy, predict="cheaper" if number == 1 else "always")
        update = encoder.encode(new)
        encoder.commit(update)
        decoder.apply(update)
        assert_equal(dict(decoder.model), new)


def test_only_the_classifier_moves_where_nothing_else_is_looked_at() -> None:
    base = model()
    options = UpdateOptions(only=lambda name: name.startswith("classifier."), predict="cheaper")
    encoder, decoder, new = UpdateEncoder(base, options), UpdateDecoder(base), base
    for number in range(3):
        new = moving(new, number)
        update = encoder.encode(new)
        encoder.commit(update)
        decoder.apply(update)
        assert flags(update)[1] <= {"classifier.weight", "classifier.bias"}
        assert NnrFile(update).bitstream.data_units[0].header.parameter_id == 1
    for name in ("features.weight", "steps"):
        assert decoder.model[name].tobytes() == base[name].tobytes()


def test_residuals_and_plain_updates_look_back_at_units_of_their_own_kind() -> None:
    base = {"w": np.zeros((12, 10), np.float32)}
    encoder, decoder = UpdateEncoder(base, UpdateOptions(predict="always")), UpdateDecoder(base)
    depths, new = [], base["w"]
    for number, predict in enumerate(["always", "never", "never", "always", "never"]):
        new = new + np.random.default_rng(number).normal(0, 1, new.shape).astype(np.float32)
        encoder.options = UpdateOptions(predict=predict)
        update = encoder.encode({"w": new})
        encoder.commit(update)
        decoder.apply(update)
        assert_equal(dict(decoder.model), dict(encoder.model))
        depths.append(NnrFile(update).bitstream.data_units[0].header.put_node_depth)
    assert depths == [1, 1, 2, 2, 3]


def test_the_first_bitstream_initialises_and_the_others_add(tmp_path: Path) -> None:
    base = {name: np.zeros_like(array) for name, array in model().items() if name != "steps"}
    encoder, decoder, new = UpdateEncoder(base, ROW, device_id=3), UpdateDecoder(), base
    for number in range(4):
        new = {**moving({**new, "steps": np.int64(0)}, number)}
        del new["steps"]
        update = encoder.encode(new)
        encoder.commit(update)
        assert NnrFile(update).topology is None
        decoder.apply(update, unverified=True)
        assert_equal(dict(decoder.model), dict(encoder.model))
        decoder.save(tmp_path / "state")
        decoder = UpdateDecoder.load(tmp_path / "state", decoder.model)


def test_depths_show_a_missing_or_repeated_update() -> None:
    base = {"w": np.zeros((12, 10), np.float32)}
    encoder, updates = UpdateEncoder(base, ROW), []
    for number in range(3):
        new = np.random.default_rng(number).normal(0, 1, (12, 10)).astype(np.float32)
        updates.append(encoder.encode({"w": new}))
        encoder.commit(updates[-1])
    decoder = UpdateDecoder(base)
    decoder.apply(updates[0], unverified=True)
    for wrong, kind in ((updates[0], nnc_core.ReplayError), (updates[2], nnc_core.MissingLinkError)):
        with pytest.raises(kind):
            decoder.apply(wrong, unverified=True)


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_centre_and_two_clients_keep_three_chains(both_ways: bool, tmp_path: Path) -> None:
    """Table 2, rows 22 to 28: the clients send to the centre, which with ``both_ways`` sends its model as updates."""
    start = {name: array for name, array in model().items() if name != "steps"}
    down, clients = UpdateEncoder(start, ROW, device_id=0), (1, 2)
    at_client = {n: UpdateDecoder(start) for n in clients}
    up = {n: UpdateEncoder(start, ROW, device_id=n) for n in clients}
    at_centre = {n: UpdateDecoder(start) for n in clients}
    centre = start
    for round_ in range(4):
        update = down.encode(centre)
        down.commit(update)
        received = []
        for n in clients:
            if both_ways:
                at_client[n].apply(update, unverified=True)
            model_at_client = at_client[n].model if both_ways else centre
            up[n].rebase(model_at_client)
            at_centre[n].rebase(down.model if both_ways else centre)
            trained = moving({**model_at_client, "steps": np.int64(0)}, round_, n)
            del trained["steps"]
            reply = up[n].encode(trained)
            up[n].commit(reply)
            units = NnrFile(reply).bitstream.data_units
            assert {(u.header.device_id, u.header.put_node_depth) for u in units} == {(n, round_ + 1)}
            at_centre[n].apply(reply, unverified=True)
            at_centre[n].save(tmp_path / f"client{n}")
            at_centre[n] = UpdateDecoder.load(tmp_path / f"client{n}", at_centre[n].model)
            assert_equal(dict(at_centre[n].model), dict(up[n].model))
            error = max(float(np.abs(up[n].model[name] - trained[name]).max()) for name in trained)
            assert error <= 2.0**-12
            received.append(at_centre[n].model)
        centre = {name: (received[0][name] + received[1][name]) / np.float32(2) for name in start}


def test_a_chain_goes_on_only_from_a_model_of_the_same_tensors() -> None:
    encoder = UpdateEncoder(model())
    with pytest.raises(nnc_core.ModelError, match="other tensors"):
        encoder.rebase({"w": np.zeros(3, np.float32)})


def test_exact_updates_are_not_predicted() -> None:
    with pytest.raises(ValueError, match="not predicted"):
        UpdateOptions(exact=True, predict="cheaper")


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_batch_norms_are_folded_in_increments(sparsity: float) -> None:
    """Table 2, rows 1 and 2: what is sent are differences of folded models; the network is unfolded from their sum."""
    info = nnc_core.ModelInfo(
        parameter_type={"conv.weight": "conv.weight"}  # type: ignore[typeddict-item]
        | {f"bn.{n}": f"bn.{n}" for n in ("beta", "gamma", "mean", "var")},  # type: ignore[dict-item]
        block_identifier=dict.fromkeys(["conv.weight", "bn.beta", "bn.gamma", "bn.mean", "bn.var"], "conv"),
    )
    rng = np.random.default_rng(4)
    new = {"conv.weight": rng.normal(0, 0.1, (12, 5, 3, 3)).astype(np.float32), "fc": np.ones((3, 12), np.float32)}
    new |= {f"bn.{name}": rng.uniform(0.5, 2, 12).astype(np.float32) for name in ("beta", "gamma", "mean", "var")}
    base = fold_batch_norm(new, info)
    assert set(base) == {"conv.weight", "conv.weight_scaling", "conv.weight.bias", "fc"}
    options = UpdateOptions(lossy=LossyOptions(qp=-80, vector_qp=-160, dq_flag=False, sparsity=sparsity))
    encoder, decoder = UpdateEncoder(base, options), UpdateDecoder(base)
    for _ in range(3 if not sparsity else 40):
        if decoder.chain.sequence < 3:
            new = {n: a + rng.normal(0, 1e-2, a.shape).astype(np.float32) for n, a in new.items()}
        update = encoder.encode(fold_batch_norm(new, info))
        encoder.commit(update)
        decoder.apply(update)
    found = unfold_batch_norm(decoder.model, info)
    assert found.keys() == new.keys()
    factor = new["bn.gamma"] / np.sqrt(new["bn.var"] + 1e-5)
    right = new["conv.weight"] * factor[:, None, None, None]
    assert np.abs(found["conv.weight"] - right).max() < 0.06
    assert np.allclose(found["bn.beta"], new["bn.beta"] - new["bn.mean"] * factor, atol=2e-3)
    assert np.array_equal(found["bn.gamma"], np.ones(12))
