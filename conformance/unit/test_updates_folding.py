"""Several updates become one."""

from __future__ import annotations

import numpy as np
import pytest

import nnc_core
from conformance.support.chains import EXACT, OPTIONS, assert_equal, chain_of, model, trained
from nnc_core import UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.updates import fold


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("order", ["base", "none"])
def test_a_folded_update_does_what_several_did(dtype: str, order: str) -> None:
    base = {name: array for name, array in model(dtype).items() if name != "steps"}
    updates, models = chain_of(base, 4, UpdateOptions(exact=True, order=order))  # type: ignore[arg-type]
    decoder = UpdateDecoder(base)
    decoder.apply(fold(updates))
    assert_equal(dict(decoder.model), models[4])


def test_a_folded_update_goes_on_with_a_restart_only() -> None:
    base = {"w": np.ones((4, 6), np.float32)}
    encoder, new, updates = UpdateEncoder(base, EXACT), base, []
    for seed in range(3):
        new = trained(new, seed)
        updates.append(encoder.encode(new))
        encoder.commit(updates[-1])
    decoder = UpdateDecoder(base)
    decoder.apply(fold(updates[:2]))
    with pytest.raises(nnc_core.MissingLinkError, match="state"):
        decoder.apply(updates[2])
    decoder.apply(UpdateEncoder(dict(decoder.model), EXACT).encode(new))
    assert_equal(dict(decoder.model), new)


def test_updates_that_do_not_follow_on_each_other_are_refused() -> None:
    updates, _ = chain_of({"w": np.ones((4, 6), np.float32)}, 3)
    with pytest.raises(nnc_core.WrongBaseError):
        fold([updates[0], updates[2]])
    with pytest.raises(nnc_core.MissingLinkError):
        fold(updates[1:])


@pytest.mark.parametrize("kind", sorted(OPTIONS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_the_base_at_hand_lossy_updates_fold_as_well(kind: str, dtype: str) -> None:
    base = model(dtype)
    updates, models = chain_of(base, 4, OPTIONS[kind])
    decoder = UpdateDecoder(base)
    decoder.apply(fold(updates, base))
    assert_equal(dict(decoder.model), models[4])
    with pytest.raises(nnc_core.UpdateError):
        decoder.apply(updates[3])
    with pytest.raises(nnc_core.UpdateError):
        fold(updates, models[1])


def test_without_a_base_lossy_updates_and_literals_are_refused() -> None:
    updates, _ = chain_of({"w": np.ones((4, 6), np.float32)}, 2, UpdateOptions())
    with pytest.raises(nnc_core.UnsupportedError, match="lossy updates"):
        fold(updates)
    base, new = {"n": np.array([1, 2], np.int32)}, {"n": np.array([1, 2 - 2**31], np.int32)}
    update = UpdateEncoder(base, EXACT).encode(new)
    with pytest.raises(nnc_core.UnsupportedError, match="literal elements"):
        fold([update])
    decoder = UpdateDecoder(base)
    decoder.apply(fold([update], base))
    assert_equal(dict(decoder.model), new)


@pytest.mark.parametrize("order", ["base", "none"])
def test_the_halves_of_wide_elements_carry_over(order: str) -> None:
    rng = np.random.default_rng(0)
    base = {"n": rng.integers(-(2**62), 2**62, (5, 6)), "x": rng.normal(size=(5, 6))}
    encoder, updates, new = UpdateEncoder(base, UpdateOptions(exact=True, order=order)), [], base  # type: ignore[arg-type]
    for seed in range(4):  # small steps have no upper half
        new = {"n": new["n"] + (2**30 if seed < 3 else 2**40), "x": new["x"] + 1e-9 * rng.normal(size=(5, 6))}
        updates.append(encoder.encode(new))
        encoder.commit(updates[-1])
    for data in (fold(updates[:3]), fold(updates)):
        decoder = UpdateDecoder(base)
        decoder.apply(data)
    assert_equal(dict(decoder.model), new)
