"""Whatever happens in whatever order: receivers have the sender's model, or a typed error and what they had before."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nnc_core import LossyOptions, UpdateDecoder, UpdateEncoder, UpdateError, UpdateOptions
from nnc_core.updates import fold

Model = dict[str, np.ndarray]
OPTIONS = {
    "exact": UpdateOptions(exact=True),
    "exact, as they lie": UpdateOptions(exact=True, order="none"),
    "lossy": UpdateOptions(),
    "lossy, sparse rows": UpdateOptions(lossy=LossyOptions(dq_flag=False, sparsity=0.5, structured=True)),
    "residuals": UpdateOptions(predict="cheaper"),
    "always residuals": UpdateOptions(lossy=LossyOptions(step=0.3), predict="always"),
}
numbers = st.integers(0, 1 << 16)


def changed(model: Model, seed: int) -> Model:
    """The model after a step; sometimes a tensor, or all of it, stays as it is."""
    rng = np.random.default_rng(seed)
    steps = {name: rng.normal(0, 0.01, array.shape) * (rng.random() < 0.7) for name, array in model.items()}
    return {
        name: array + np.int64(rng.integers(3))
        if array.dtype.kind == "i"
        else (array + steps[name]).astype(array.dtype)
        for name, array in model.items()
    }


def bits(model: Model) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.items()}


class Chain(RuleBasedStateMachine):
    """A sender and two receivers that get its updates late, twice, or not at all; both ends stop and go on."""

    @initialize(kind=st.sampled_from(sorted(OPTIONS)), dtype=st.sampled_from([np.float32, ml_dtypes.bfloat16]))
    def start(self, kind: str, dtype: type) -> None:
        rng = np.random.default_rng(0)
        weights = rng.normal(0, 0.1, (7, 5)), rng.normal(0, 1, 7), rng.normal(0, 1, (3, 2, 2))
        base = {f"w{j}": array.astype(dtype) for j, array in enumerate(weights)} | {"n": np.asarray(5, np.int64)}
        self.options = OPTIONS[kind]
        self.sender = UpdateEncoder(base, self.options)
        self.receivers = [UpdateDecoder(base), UpdateDecoder(base)]
        self.at = [0, 0]
        self.updates: list[bytes] = []
        self.models = [dict(base)]
        self.starts = [0]  # after how many updates each chain began
        self.new = base
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(seed=numbers, restart=st.booleans())
    def diff(self, seed: int, restart: bool) -> None:
        self.new = changed(self.new, seed)
        update = self.sender.encode(self.new, restart=restart)
        if restart and self.updates:
            self.starts.append(len(self.updates))
        self.sender.commit(update)
        self.updates.append(update)
        self.models.append(dict(self.sender.model))
        if self.options.exact:
            assert bits(self.models[-1]) == bits(self.new)

    @rule(seed=numbers)
    def lose_an_update_before_it_is_committed(self, seed: int) -> None:
        self.sender.encode(changed(self.new, seed))
        self.sender.discard()

    @rule(who=st.integers(0, 1))
    def patch(self, who: int) -> None:
        if self.at[who] < len(self.updates):
            self.receivers[who].apply(self.updates[self.at[who]])
            self.at[who] += 1

    @precondition(lambda self: len(self.updates) > 1)
    @rule(who=st.integers(0, 1), which=numbers)
    def patch_with_another_update(self, who: int, which: int) -> None:
        which %= len(self.updates)
        receiver, chain = self.receivers[who], self.receivers[who].chain
        if bits(self.models[which]) == bits(receiver.model):  # it fits, or changes nothing
            return
        with pytest.raises(UpdateError):
            receiver.apply(self.updates[which])
        assert receiver.chain is chain

    @rule()
    def the_sender_stops_and_goes_on(self) -> None:
        path = Path(self.folder.name, "sender")
        self.sender.save(path)
        self.sender = UpdateEncoder.load(path, self.sender.model, self.options)

    @rule(who=st.integers(0, 1))
    def a_receiver_stops_and_goes_on(self, who: int) -> None:
        path = Path(self.folder.name, f"receiver{who}")
        self.receivers[who].save(path)
        self.receivers[who] = UpdateDecoder.load(path, self.receivers[who].model)

    @precondition(lambda self: bool(self.updates))
    @rule(which=numbers, length=st.integers(1, 4))
    def fold_a_chain_from_its_start(self, which: int, length: int) -> None:
        start = self.starts[which % len(self.starts)]
        end = min([start + length, len(self.updates), *(s for s in self.starts if s > start)])
        chain = self.updates[start:end]
        late = UpdateDecoder(self.models[start])
        if bits(self.models[start]) == bits(self.models[end]):  # a replay of nothing
            return
        late.apply(fold(chain) if self.options.exact else fold(chain, self.models[start]))
        assert bits(late.model) == bits(self.models[end])

    @invariant()
    def receivers_have_what_the_sender_had(self) -> None:
        for at, receiver in zip(getattr(self, "at", ()), getattr(self, "receivers", ()), strict=True):
            assert bits(receiver.model) == bits(self.models[at])


TestChain = Chain.TestCase
TestChain.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
