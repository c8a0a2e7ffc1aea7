"""Chains of updates: the receiver has what the sender says, and both keep a state."""

from __future__ import annotations

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc_core
from conformance.support.chains import EXACT, OPTIONS, assert_equal, chain_of, model, trained
from nnc_core import LossyOptions, UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.updates import Chain, PatchedModel


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_the_receiver_has_what_the_sender_reconstructs(dtype: str, options: UpdateOptions) -> None:
    base = model(dtype)
    encoder, decoder, new = UpdateEncoder(base, options), UpdateDecoder(base), base
    for seed in range(4):
        new = trained(new, seed, 0.05)
        update = encoder.encode(new)
        encoder.commit(update)
        decoder.apply(update)
        assert_equal(dict(decoder.model), dict(encoder.model))
        if options.exact:
            assert_equal(dict(decoder.model), new)


def test_what_is_not_finite_and_every_nan_survives_an_exact_and_a_lossy_update() -> None:
    base = {"w": np.ones((4, 4), np.float32), "v": np.ones((4, 4), np.float32)}
    special = np.array([0x7F800001, 0xFFC00123, 0x80000000, 0x7F800000], np.uint32).view(np.float32)
    new = {"w": np.ones((4, 4), np.float32), "v": np.full((4, 4), 2, np.float32)}
    new["w"][0] = special
    for options in (EXACT, UpdateOptions()):
        decoder = UpdateDecoder(base)
        decoder.apply(UpdateEncoder(base, options).encode(new))
        assert decoder.model["w"].tobytes() == new["w"].tobytes()


@pytest.mark.parametrize("name", ["int32", "int64", "uint64"])
def test_a_change_that_the_coder_cannot_hold_arrives_alone_as_well(name: str) -> None:
    half = np.array(1 << (8 * np.dtype(name).itemsize - 1), "u8").astype(f"u{np.dtype(name).itemsize}")
    base, new = ({"n": np.array([3, 4]).astype(name)} for _ in range(2))
    new["n"].view(half.dtype)[1] += half
    decoder = UpdateDecoder(base)
    decoder.apply(UpdateEncoder(base, EXACT).encode(new))
    assert_equal(dict(decoder.model), new)


def test_unchanged_tensors_have_no_unit_and_an_update_may_be_empty() -> None:
    base = model()
    encoder = UpdateEncoder(base, EXACT)
    update = encoder.encode({**base, "fc.bias": base["fc.bias"] + 1})
    assert len(list(nnc_core.decode(update))) == 1
    decoder = UpdateDecoder(base)
    for number, new in enumerate((base, base, {**base, "fc.bias": base["fc.bias"] + 1}, None), 1):
        update = encoder.encode(new or dict(encoder.model))
        encoder.commit(update)
        assert decoder.apply(update).sequence == number
        assert_equal(dict(decoder.model), dict(encoder.model))
        with pytest.raises(nnc_core.ReplayError):
            decoder.apply(update)


def test_other_decoders_find_integers_under_names_that_no_parameter_has() -> None:
    base = model("bfloat16")
    update = UpdateEncoder(base, EXACT).encode(trained(base, 1))
    decoded = nnc_core.decode(update)
    assert all(array.dtype == np.int32 for array in decoded.values())
    assert not set(decoded) & set(base)


def test_errors_do_not_add_up_over_a_hundred_lossy_updates() -> None:
    base = {"w": np.random.default_rng(0).normal(0, 0.05, (48, 40)).astype(np.float32)}
    encoder, decoder, new, errors = UpdateEncoder(base, UpdateOptions()), UpdateDecoder(base), base, []
    for seed in range(100):
        new = trained(new, seed, 1e-4)
        update = encoder.encode(new)
        encoder.commit(update)
        decoder.apply(update)
        errors.append(float(np.abs(decoder.model["w"] - new["w"]).max()))
    assert_equal(dict(decoder.model), dict(encoder.model))
    assert max(errors[90:]) < 2 * max(errors[:10])


def test_steps_follow_the_change_so_that_a_tiny_learning_rate_arrives() -> None:
    base = {"w": np.random.default_rng(0).normal(0, 0.05, (64, 64)).astype(np.float32)}
    new = {"w": base["w"] + np.random.default_rng(1).normal(0, 1e-6, (64, 64)).astype(np.float32)}
    decoder = UpdateDecoder(base)
    decoder.apply(UpdateEncoder(base, UpdateOptions(lossy=LossyOptions(step=0.5))).encode(new))
    before, after = (np.linalg.norm(new["w"] - each) for each in (base["w"], decoder.model["w"]))
    assert after < 0.5 * before


def test_a_sparse_update_sends_the_largest_changes_and_the_rest_comes_later() -> None:
    base = {"w": np.zeros((40, 50), np.float32)}
    new = {"w": np.random.default_rng(1).normal(0, 1, (40, 50)).astype(np.float32)}
    encoder = UpdateEncoder(base, UpdateOptions(lossy=LossyOptions(step=0.1, sparsity=0.9)))
    update = encoder.encode(new)
    encoder.commit(update)
    assert np.count_nonzero(encoder.model["w"]) <= 200
    for _ in range(30):
        encoder.commit(encoder.encode(new))
    assert np.linalg.norm(encoder.model["w"] - new["w"]) < 0.2 * np.linalg.norm(new["w"])


def test_only_the_chosen_tensors_change() -> None:
    base = model()
    options = UpdateOptions(exact=True, only=lambda name: name.startswith("fc."))
    decoder = UpdateDecoder(base)
    decoder.apply(UpdateEncoder(base, options).encode(trained(base, 1)))
    assert {n for n in base if decoder.model[n].tobytes() != base[n].tobytes()} <= {"fc.weight", "fc.bias"}


def test_an_update_that_is_not_committed_leaves_no_trace() -> None:
    base = model()
    encoder = UpdateEncoder(base, EXACT)
    lost = encoder.encode(trained(base, 1))
    encoder.discard()
    again = encoder.encode(trained(base, 1))
    assert lost == again
    with pytest.raises(ValueError, match="encoded last"):
        encoder.commit(lost + b"x")


def test_a_restart_needs_nothing_but_the_model() -> None:
    base = model("bfloat16")
    updates, models = chain_of(base, 3)
    encoder = UpdateEncoder(base, EXACT)
    new = base
    for seed, update in enumerate(updates):
        new = trained(new, seed)
        encoder.commit(encoder.encode(new))
        assert len(update) > 0
    restart = encoder.encode(trained(new, 9), restart=True)
    late = UpdateDecoder(models[3])
    late.apply(restart)
    assert_equal(dict(late.model), trained(new, 9))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(OPTIONS)),
    st.lists(st.sampled_from(["update", "restart", "sender saves", "receiver saves", "replay", "lose"]), max_size=12),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_any_order_of_updates_restarts_and_saved_states_gives_the_same_weights(
    tmp_path_factory: pytest.TempPathFactory, kind: str, events: list[str], dtype: str
) -> None:
    folder, options = tmp_path_factory.mktemp("chain"), OPTIONS[kind]
    base = model(dtype)
    encoder, decoder, new, last = UpdateEncoder(base, options), UpdateDecoder(base), base, b""
    for seed, event in enumerate(events):
        if event in ("update", "restart"):
            new = trained(new, seed)
            last = encoder.encode(new, restart=event == "restart")
            encoder.commit(last)
            decoder.apply(last)
        elif event == "sender saves":
            encoder.save(folder / "sender")
            encoder = UpdateEncoder.load(folder / "sender", dict(encoder.model), options)
        elif event == "receiver saves":
            decoder.save(folder / "receiver")
            decoder = UpdateDecoder.load(folder / "receiver", dict(decoder.model))
        elif event == "replay" and last:
            with pytest.raises(nnc_core.UpdateError):
                decoder.apply(last)
        elif event == "lose":
            encoder.encode(trained(new, seed))
            encoder.discard()
        assert_equal(dict(decoder.model), dict(encoder.model))


def test_a_resumed_sender_writes_the_bytes_of_one_that_never_stopped(tmp_path: Path) -> None:
    for options in OPTIONS.values():
        base = model("bfloat16")
        steady, stopped, new = UpdateEncoder(base, options), UpdateEncoder(base, options), base
        for seed in range(4):
            new = trained(new, seed)
            updates = steady.encode(new), stopped.encode(new)
            assert updates[0] == updates[1]
            steady.commit(updates[0])
            stopped.commit(updates[1])
            stopped.save(tmp_path / "state")
            stopped = UpdateEncoder.load(tmp_path / "state", dict(stopped.model), options)


def test_the_bytes_do_not_depend_on_threads() -> None:
    base = model()
    new = trained(base, 1)
    for options in OPTIONS.values():
        assert len({UpdateEncoder(base, options, threads=n).encode(new) for n in (1, 2, 3)}) == 1


def test_a_state_needs_the_model_that_it_belongs_to(tmp_path: Path) -> None:
    base = model()
    UpdateEncoder(base).save(tmp_path / "state")
    with pytest.raises(nnc_core.WrongBaseError):
        UpdateDecoder.load(tmp_path / "state", trained(base, 1))


def test_damage_at_any_byte_of_a_state_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    base = {"w": np.ones((3, 4), ml_dtypes.bfloat16)}
    encoder = UpdateEncoder(base, UpdateOptions())
    encoder.commit(encoder.encode({"w": np.full((3, 4), 2, ml_dtypes.bfloat16)}))
    encoder.save(tmp_path / "state")
    data = (tmp_path / "state").read_bytes()
    for place in range(len(data)):
        (tmp_path / "damaged").write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            UpdateDecoder.load(tmp_path / "damaged", dict(encoder.model))
        except nnc_core.NncError:
            continue


def test_what_is_not_a_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        archive.writestr("a", "b")
    for name in ("text", "other"):
        with pytest.raises(nnc_core.ModelError, match="is not the state of a chain"):
            UpdateDecoder.load(tmp_path / name, model())


def test_a_failed_write_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = UpdateEncoder(model())
    encoder.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        encoder.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_are_decoded_ahead_in_whatever_order_they_are_asked_for(threads: int) -> None:
    base = {f"w{number}": np.random.default_rng(number).normal(size=(9, 8)).astype(np.float32) for number in range(9)}
    updates, models = chain_of({name: base[name] for name in base}, 3)
    for order in (list(base), list(base)[::-1], [*list(base)[1:], "w0", "w4"]):
        patched = PatchedModel(Chain.of(base), base, remember=False)
        for update in updates:
            patched.add(nnc_core.NnrFile(update))
        with patched.decoding_ahead(threads) as tensors:
            assert list(tensors) == list(base)
            assert all(tensors[name].tobytes() == models[3][name].tobytes() for name in order)
        assert patched.chain_after().digest == Chain.of(models[3]).digest


def test_damage_at_any_byte_of_an_update_is_an_error_and_changes_nothing() -> None:
    base = {
        "w": np.random.default_rng(0).normal(size=(6, 8)).astype(np.float16),
        "n": np.int64(1) * np.ones(2, np.int64),
    }
    for options in (EXACT, UpdateOptions()):
        update = UpdateEncoder(base, options).encode(trained(base, 1, 0.1))
        right = UpdateDecoder(base)
        right.apply(update)
        for place in range(len(update)):
            decoder = UpdateDecoder(base)
            try:
                decoder.apply(update[:place] + bytes([update[place] ^ 0x10]) + update[place + 1 :])
            except nnc_core.NncError:
                assert_equal(dict(decoder.model), base)
            else:
                assert_equal(dict(decoder.model), dict(right.model))
            with pytest.raises(nnc_core.NncError):
                UpdateDecoder(base).apply(update[:place])


def test_patches_name_the_elements_that_change_and_apply_nothing() -> None:
    base = model()
    new = {**base, "fc.weight": base["fc.weight"].copy()}
    new["fc.weight"][3, 5] = 7
    decoder = UpdateDecoder(base)
    (patch,) = decoder.patches(UpdateEncoder(base, EXACT).encode(new))
    assert (patch.name, patch.shape, patch.dtype) == ("fc.weight", (24, 16), "float32")
    assert (patch.indices.tolist(), patch.values.tolist()) == ([3 * 16 + 5], [7.0])
    assert_equal(dict(decoder.model), base)
