from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

FEEDS = {
    "face_rfb_320.onnx": {"input": np.linspace(-1, 1, 3 * 240 * 320, dtype=np.float32).reshape(1, 3, 240, 320)},
    "silero_vad.onnx": {
        "input": np.sin(np.arange(512, dtype=np.float32))[None],
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000, np.int64),
    },
}


@pytest.fixture
def model(shared_models):
    def find(name):
        found = [path for path in shared_models if path.name == name]
        if not found:
            pytest.skip(f"{name} is not among the shared models")
        return found[0]

    return find


def test_every_model_is_written_back_as_it_was(shared_models, round_trip):
    for path in shared_models:
        assert round_trip(path).tensors


def test_every_topology_loads_without_its_weights(shared_models, adapter, tmp_path):
    for path in shared_models:
        read = adapter.read(path)
        (tmp_path / path.name).write_bytes(read.topology.data)
        topology = onnx.load(tmp_path / path.name, load_external_data=False)
        onnx.shape_inference.infer_shapes(topology)
        assert len(read.topology.data) < path.stat().st_size / 4
        assert [n.op_type for n in topology.graph.node] == [n.op_type for n in onnx.load(path).graph.node]
        copies = read.topology.data.count(b"nnr.copy")
        assert read.topology.data.count(b"\x0a\x08location\x12\x03nnr") == len(read.tensors) + copies


@pytest.mark.parametrize("name", FEEDS)
def test_outputs_are_the_same(model, adapter, run, tmp_path, name):
    path = model(name)
    read = adapter.read(path)
    adapter.write(read.tensors, read.topology, tmp_path / "out.onnx")
    for before, after in zip(run(path, FEEDS[name]), run(tmp_path / "out.onnx", FEEDS[name]), strict=True):
        np.testing.assert_array_equal(after, before, strict=True)


def test_the_detector_has_blocks_of_convolutions_and_normalizations(model, adapter):
    read = adapter.read(model("face_rfb_320.onnx"))
    info = read.model_info
    types = Counter(info["parameter_type"].values())
    assert types["conv.weight"] == 52
    assert types["bn.gamma"] == types["bn.beta"] == types["bn.mean"] == types["bn.var"] > 30
    assert info["block_identifier"]["base_net.0.1.running_var"] == "base_net.0.0.weight"
    assert set(info["parameter_type"]) == set(read.tensors)
    for name, block in info["block_identifier"].items():
        assert read.tensors[name].shape[0] == read.tensors[block].shape[0]


def test_the_voice_detector_has_its_weights_in_both_branches(model, adapter):
    read = adapter.read(model("silero_vad.onnx"))
    weights = {n.split("__Inline_0__")[1] for n in read.tensors if n.startswith("If_0_else_branch")}
    assert {"decoder.rnn.weight_ih", "encoder.0.reparam_conv.weight", "stft.forward_basis_buffer"} <= weights
    assert len(read.tensors) == 2 * len(weights)
    kinds = read.model_info["parameter_type"]
    assert kinds["If_0_then_branch__Inline_0__decoder.rnn.weight_hh"] == "fc.weight"
