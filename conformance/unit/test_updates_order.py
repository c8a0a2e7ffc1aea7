"""Updates that do not come next, or not for this model, are refused with a typed error."""

from __future__ import annotations

import numpy as np
import pytest

import nnc_core
from conformance.support.chains import EXACT, assert_equal, chain_of, model, trained
from nnc_core import UpdateDecoder, UpdateEncoder, UpdateOptions


def test_a_replay_is_refused_and_changes_nothing() -> None:
    base = model()
    updates, models = chain_of(base, 2)
    decoder = UpdateDecoder(base)
    decoder.apply(updates[0])
    with pytest.raises(nnc_core.ReplayError):
        decoder.apply(updates[0])
    assert_equal(dict(decoder.model), models[1])


@pytest.mark.parametrize("options", [EXACT, UpdateOptions()])
def test_a_gap_says_which_update_is_missing(options: UpdateOptions) -> None:
    base = model()
    updates, models = chain_of(base, 4, options)
    decoder = UpdateDecoder(base)
    decoder.apply(updates[0])
    with pytest.raises(nnc_core.MissingLinkError, match="update 2") as caught:
        decoder.apply(updates[3])
    assert (caught.value.have, caught.value.need) == (1, 3)
    assert_equal(dict(decoder.model), models[1])


def test_a_lost_update_in_which_a_tensor_had_no_unit_is_missed() -> None:
    base = model()
    encoder, updates, new = UpdateEncoder(base, EXACT), [], base
    for name in ("fc.bias", "fc.weight", "fc.bias"):
        new = {**new, name: new[name] + 1}
        updates.append(encoder.encode(new))
        encoder.commit(updates[-1])
    decoder = UpdateDecoder(base)
    decoder.apply(updates[0])
    with pytest.raises(nnc_core.MissingLinkError):
        decoder.apply(updates[2])


def test_another_base_is_refused() -> None:
    updates, _ = chain_of(model(), 1)
    with pytest.raises(nnc_core.WrongBaseError):
        UpdateDecoder(model(seed=1)).apply(updates[0])


def test_one_flipped_bit_of_the_base_is_noticed() -> None:
    base = model()
    updates, _ = chain_of(base, 1)
    flipped = {**base, "fc.weight": base["fc.weight"].copy()}
    flipped["fc.weight"].reshape(-1).view(np.uint32)[7] ^= 1
    with pytest.raises(nnc_core.WrongBaseError):
        UpdateDecoder(flipped).apply(updates[0])


def test_the_chain_of_another_sender_is_refused() -> None:
    base = model()
    ours, theirs = UpdateEncoder(base, EXACT, device_id=1), UpdateEncoder(base, EXACT, device_id=2)
    a, b = ours.encode(trained(base, 1)), theirs.encode(trained(base, 2))
    theirs.commit(b)
    second = theirs.encode(trained(dict(theirs.model), 3))
    decoder = UpdateDecoder(base)
    decoder.apply(a)
    with pytest.raises(nnc_core.UpdateError):
        decoder.apply(b)
    with pytest.raises(nnc_core.UpdateError):
        decoder.apply(second)


def test_the_right_model_without_the_state_of_the_chain_is_refused() -> None:
    updates, models = chain_of(model(), 2)
    with pytest.raises(nnc_core.MissingLinkError, match="state"):
        UpdateDecoder(models[1]).apply(updates[1])


def test_a_bitstream_without_a_manifest_needs_a_word() -> None:
    base = {"w": np.zeros((3, 3), np.float32)}
    plain = nnc_core.encode({"w": np.full((3, 3), 0.25, np.float32)}, parameters=nnc_core.CodingParameters(qp=-60))
    decoder = UpdateDecoder(base)
    with pytest.raises(nnc_core.ModelError, match="unverified"):
        decoder.apply(plain)
    decoder.apply(plain, unverified=True)
    assert np.allclose(decoder.model["w"], 0.25)


def test_other_tensors_shapes_or_types_are_refused() -> None:
    base = model()
    encoder = UpdateEncoder(base, EXACT)
    for strange in (
        {**base, "more": np.zeros(3)},
        {name: array for name, array in base.items() if name != "mask"},
        {**base, "fc.bias": base["fc.bias"][:3]},
        {**base, "fc.bias": base["fc.bias"].astype(np.float64)},
    ):
        with pytest.raises(nnc_core.ModelError, match="whole model"):
            encoder.encode(strange)
