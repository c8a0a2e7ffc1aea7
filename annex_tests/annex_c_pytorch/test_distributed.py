"""Distributed checkpoints: folders of pieces, described by a pickle that is read without running it."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest

import nnc_adapters
import nnc_core
from nnc_core import ModelError, NncError


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def converters(torch):
    return pytest.importorskip("torch.distributed.checkpoint.format_utils", reason="PyTorch is not distributed")


@pytest.fixture
def state(torch, network):
    """What training keeps: a model, what the optimizer remembers, and how far it came."""
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    return {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7, "note": "from a test"}


@pytest.fixture
def checkpoint(save, converters, state, tmp_path):
    converters.torch_save_to_dcp(save(state, tmp_path / "m.pt"), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def divided(checkpoint):
    """The checkpoint as two processes would write it: the first weight in two pieces, the second in another file."""

    def change(metadata):
        index = next(i for i in metadata.storage_data if i.fqn == "model.6.weight")
        whole = metadata.storage_data.pop(index)
        (checkpoint / "__1_0.distcp").write_bytes(piece(checkpoint, whole) * 2)
        for number, row in enumerate((0, 20)):
            there = replace(whole, relative_path="__1_0.distcp", offset=number * whole.length)
            metadata.storage_data[replace(index, index=number, offset=[row, 0])] = there

    rewritten(checkpoint, change)
    return checkpoint


def piece(folder, info):
    return (folder / info.relative_path).read_bytes()[info.offset : info.offset + info.length]


def rewritten(folder, change):
    """Change the description; what is unpickled here was written by this test."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def test_a_checkpoint_is_reproduced_byte_for_byte(identical, checkpoint):
    model = identical(checkpoint)
    assert {"0.weight", "1.running_mean", "6.weight"} <= set(model.tensors)
    assert not any("exp_avg" in name for name in model.tensors)


def test_pieces_of_a_tensor_are_tensors_of_their_own(identical, divided):
    model = identical(divided)
    assert {"6.weight[0,0]", "6.weight[20,0]", "0.weight"} <= set(model.tensors)
    assert "6.weight" not in model.tensors


def test_pytorch_loads_decoded_weights_and_everything_else_as_it_was(torch, converters, checkpoint, state, tmp_path):
    nnc_adapters.compress(checkpoint, tmp_path / "m.nnr")
    restored = nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "restored").target
    decoded = nnc_core.decode((tmp_path / "m.nnr").read_bytes())
    converters.dcp_to_torch_save(restored, tmp_path / "restored.pt")
    after = torch.load(tmp_path / "restored.pt", weights_only=True)
    for name, tensor in state["model"].items():
        expected = torch.from_numpy(decoded[name]).to(tensor.dtype) if name in decoded else tensor
        assert torch.equal(after["model"][name], expected)
    for key, entry in state["optimizer"]["state"].items():
        kept = after["optimizer"]["state"][str(key)]  # PyTorch itself makes texts of the keys
        assert all(torch.equal(kept[name], tensor) for name, tensor in entry.items())
    assert (after["epoch"], after["note"]) == (7, "from a test")


def test_what_an_optimizer_keeps_can_be_left_behind(torch, converters, checkpoint, state, tmp_path):
    nnc_adapters.compress(checkpoint, tmp_path / "m.nnr", keep_optimizer=False)
    restored = nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "restored").target
    converters.dcp_to_torch_save(restored, tmp_path / "restored.pt")
    after = torch.load(tmp_path / "restored.pt", weights_only=True)
    assert after["model"]["0.weight"].any()
    for key, entry in state["optimizer"]["state"].items():
        for name, tensor in entry.items():
            expected = torch.zeros_like(tensor) if tensor.shape else tensor
            assert torch.equal(after["optimizer"]["state"][str(key)][name], expected)


def test_files_beside_the_pieces_are_kept_if_they_are_text(identical, checkpoint):
    (checkpoint / "config.json").write_text("{}")
    identical(checkpoint)


def test_a_description_that_runs_code_is_refused_and_not_run(adapter, checkpoint, tmp_path):
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Runs(f"touch {tmp_path / 'canary'}")))
    assert adapter.sniff(checkpoint)
    with pytest.raises(ModelError, match=r"posix\.system, which could run code.*dcp_to_torch"):
        adapter.read(checkpoint)
    assert not (tmp_path / "canary").exists()


def test_a_piece_that_runs_code_is_refused_and_not_run(torch, adapter, checkpoint, tmp_path):
    def change(metadata):
        index = next(i for i in metadata.storage_data if i.fqn == "note")
        torch.save(Runs(f"touch {tmp_path / 'canary'}"), checkpoint / "__1_0.distcp")
        size = (checkpoint / "__1_0.distcp").stat().st_size
        info = metadata.storage_data[index]
        metadata.storage_data[index] = replace(info, relative_path="__1_0.distcp", offset=0, length=size)

    rewritten(checkpoint, change)
    with pytest.raises(ModelError, match=r"could run code.*dcp_to_torch"):
        adapter.read(checkpoint)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_path": "../m.pt"}, "not the name of a file"),
        ({"relative_path": "absent.distcp"}, "lists this file, and it is not there"),
        ({"relative_path": 5}, "is not a name"),
        ({"offset": -1}, "not a number of bytes"),
        ({"offset": 1}, "cannot be"),
        ({"offset": 1 << 40}, "cannot be"),
        ({"length": 0}, "cannot be"),
        ({"length": 1 << 40}, "cannot be"),
        ({"length": 100}, "archive"),
        ({"transform_descriptors": ["zstd"]}, "without extensions"),
    ],
    ids=str,
)
def test_a_description_that_lies_is_refused(adapter, checkpoint, changes, message):
    def change(metadata):
        index = next(iter(metadata.storage_data))
        metadata.storage_data[index] = replace(metadata.storage_data[index], **changes)

    rewritten(checkpoint, change)
    with pytest.raises(ModelError, match=message):
        adapter.read(checkpoint)


def test_damaged_checkpoints_are_read_or_refused(adapter, checkpoint, tmp_path):
    rewritten(checkpoint, lambda metadata: setattr(metadata, "storage_meta", None))  # its folder, and a random name
    whole = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    rng = random.Random(5)
    for _ in range(150):
        name = rng.choice(sorted(whole))
        data = bytearray(whole[name])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (checkpoint / name).write_bytes(data[: rng.choice((len(data), rng.randrange(1, len(data))))])
        with suppress(NncError):
            model = adapter.read(checkpoint)
            adapter.write(model.tensors, model.topology, tmp_path / "out", force=True)
        (checkpoint / name).write_bytes(whole[name])
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert {path.name for path in tmp_path.iterdir()} == {"m.pt", "checkpoint"}
