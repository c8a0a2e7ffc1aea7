"""What the tensors of a model are called, and what is known about them."""

from __future__ import annotations

import numpy as np
import pytest

from nnc_adapters.tensorflow import roles

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["export", "saved_model", "checkpoint"])
def test_variables_have_the_names_that_they_have_in_keras(saved, adapter, network, kind):
    large = {v.path for v in network.weights if v.shape.num_elements() >= 16}
    assert set(adapter.read(saved(kind)).tensors) == large


def test_tensors_of_a_keras_file_have_their_paths_in_it(saved, adapter):
    assert "layers/depthwise_conv2d/vars/0" in adapter.read(saved("model.keras")).tensors
    assert "model_weights/dense/sequential/dense/kernel" in adapter.read(saved("model.h5")).tensors


def test_names_that_occur_several_times_give_way_to_the_keys(tf, adapter, tmp_path):
    module = tf.Module()
    module.first, module.second = (tf.Variable(np.random.default_rng(n).random(16), name="w") for n in range(2))
    tf.train.Checkpoint(module=module).write(str(tmp_path / "c"))
    assert list(adapter.read(tmp_path / "c.index").tensors) == ["module/first", "module/second"]


def test_a_checkpoint_by_names_keeps_them(tf, adapter, tmp_path):
    names = ["conv/weights", "conv/biases", "conv/weights/Momentum", "conv/weights/ExponentialMovingAverage"]
    arrays = [np.ones((3, 3, 4, 16)), np.ones(16), np.ones((3, 3, 4, 16)), np.ones((3, 3, 4, 16))]
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "c"), tensor_names=names, shape_and_slices=[""] * 4, tensors=arrays)
    model = adapter.read(tmp_path / "c.index")
    assert set(model.tensors) == set(names) - {"conv/weights/Momentum"}
    kinds = model.model_info["parameter_type"]
    assert kinds == {"conv/weights": "conv.weight", "conv/biases": "conv.bias"}


@pytest.mark.parametrize("kind", ["export", "saved_model", "checkpoint"])
def test_the_roles_of_saved_variables(saved, adapter, kind):
    prefix = "sequential/"
    assert adapter.read(saved(kind)).model_info["parameter_type"] == {
        prefix + "conv2d/kernel": "conv.weight",
        prefix + "conv2d/bias": "conv.bias",
        prefix + "batch_normalization/gamma": "bn.gamma",
        prefix + "batch_normalization/beta": "bn.beta",
        prefix + "batch_normalization/moving_mean": "bn.mean",
        prefix + "batch_normalization/moving_variance": "bn.var",
        prefix + "depthwise_conv2d/kernel": "conv.weight",
        prefix + "depthwise_conv2d/bias": "conv.bias",
        prefix + "dense/kernel": "fc.weight",
    }


@pytest.mark.parametrize("kind", ["model.keras", "model.h5", "model.weights.h5"])
def test_keras_files_tell_the_same_roles(saved, adapter, kind):
    found = adapter.read(saved(kind)).model_info["parameter_type"]
    expected = adapter.read(saved("export")).model_info["parameter_type"]
    assert sorted(found.values()) == sorted(expected.values())


def test_the_roles_in_a_recurrent_network(saved, adapter):
    found = adapter.read(saved("recurrent.keras")).model_info["parameter_type"]
    assert found["layers/embedding/vars/0"] == "fc.weight"
    assert found["layers/lstm/cell/vars/0"] == found["layers/lstm/cell/vars/1"] == "fc.weight"
    assert found["layers/bidirectional/forward_layer/cell/vars/2"] == "fc.bias"
    assert found["layers/multi_head_attention/query_dense/vars/1"] == "fc.bias"
    assert "layers/multi_head_attention/query_dense/vars/0" not in found
    assert "layers/layer_normalization/vars/0" not in found


def test_the_roles_in_a_tflite_model(saved, adapter):
    model = adapter.read(saved("model.tflite"))
    kinds = model.model_info["parameter_type"]
    shapes = {kinds[name]: array.shape for name, array in model.tensors.items() if name in kinds}
    assert shapes["conv.weight"] in {(16, 3, 3, 3), (1, 3, 3, 16)}
    assert shapes["fc.weight"] == (10, 256)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"a/kernel": (3, 3, 4, 8), "a/bias": (8,)}, {"a/kernel": "conv.weight", "a/bias": "conv.bias"}),
        ({"a/kernel:0": (4, 8), "a/bias:0": (8,)}, {"a/kernel:0": "fc.weight", "a/bias:0": "fc.bias"}),
        ({"a/kernel": (4, 2, 8), "a/bias": (8,)}, {}),
        ({"a/kernel": (4, 8), "b/bias": (8,)}, {"a/kernel": "fc.weight"}),
        ({"a/gamma": (8,), "a/beta": (8,)}, {}),
        ({"a/depthwise_kernel": (3, 3, 8, 1)}, {"a/depthwise_kernel": "conv.weight"}),
        ({"kernel": (4, 8)}, {"kernel": "fc.weight"}),
        ({"variables/0": (4, 8), "": (3,)}, {}),
    ],
)
def test_a_role_is_told_by_the_name_and_the_rest_of_the_layer(shapes, expected):
    assert roles.by_name(shapes) == expected
