"""Models that were trained and published by others."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.tensorflow import TensorflowAdapter

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("name", "tensors"), [("kws_saved_model", 55), ("resnet8_cifar10.h5", 47)])
def test_they_are_written_as_they_were_read(shared_models, round_trip, name, tensors):
    assert len(round_trip(shared_models / name).tensors) == tensors


def test_keyword_spotting_predicts_as_its_coded_weights_say(tf, shared_models, tmp_path):
    source, target, reference = shared_models / "kws_saved_model", tmp_path / "kws", tmp_path / "reference"
    report = nnc_adapters.compress(source, tmp_path / "kws.nnr")
    nnc_adapters.decompress(tmp_path / "kws.nnr", target)
    assert report.percent < 30
    x = np.random.default_rng(0).normal(0, 30, (4, 49, 10, 1)).astype(np.float32)
    with nnc_core.open(tmp_path / "kws.nnr") as file:
        saved_by_tensorflow(tf, source, reference, dict(file))
    outputs = predict(tf, target, x)
    np.testing.assert_array_equal(outputs, predict(tf, reference, x))
    np.testing.assert_array_equal(outputs.argmax(1), predict(tf, source, x).argmax(1))


def saved_by_tensorflow(tf, source, target, decoded):
    """The model with other variables, which TensorFlow itself writes."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    prefix = str(source / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    full_names = names_of(reader)
    keys = sorted(reader.get_variable_to_shape_map())
    values = [decoded.get(full_names.get(key), reader.get_tensor(key)) for key in keys]
    for file in (target / "variables").iterdir():
        file.chmod(0o644)
    tf.raw_ops.SaveV2(
        prefix=str(target / "variables" / "variables"),
        tensor_names=keys,
        shape_and_slices=[""] * len(keys),
        tensors=values,
    )


def names_of(reader):
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    return {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}


def predict(tf, folder, x):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = model.signature_def["serving_default"]
        (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
        return session.run(fetch.name, {feed.name: x})


def test_the_slots_of_the_optimizer_are_most_of_the_bitstream(shared_models, tmp_path):
    models = {
        keep: TensorflowAdapter().read(shared_models / "kws_saved_model", Options(keep_optimizer=keep))
        for keep in (True, False)
    }
    size = {k: len(nnc_core.encode(m.tensors, topology=m.topology, model_info=m.model_info)) for k, m in models.items()}
    assert size[False] < 110_000
    assert size[True] > 2 * size[False]


def test_a_legacy_file_keeps_everything_but_its_weights(tf, shared_models, tmp_path):
    source, target = shared_models / "resnet8_cifar10.h5", tmp_path / "resnet8.h5"
    nnc_adapters.compress(source, tmp_path / "resnet8.nnr")
    nnc_adapters.decompress(tmp_path / "resnet8.nnr", target)
    with nnc_core.open(tmp_path / "resnet8.nnr") as file:
        decoded = dict(file)
    with h5py.File(source) as before, h5py.File(target) as after:
        assert before.attrs["model_config"] == after.attrs["model_config"]
        found = []
        before.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in found:
            np.testing.assert_array_equal(after[name][()], decoded.get(name, before[name][()]))
    assert sum(name.startswith("model_weights/") for name in decoded) == len(decoded)


def test_keras_predicts_with_a_legacy_file(tf, shared_models, coded):
    import keras

    source = shared_models / "resnet8_cifar10.h5"
    target, decoded = coded(source)
    reference = keras.models.load_model(source, compile=False)
    for layer in reference.layers:
        for variable in layer.weights:
            name = f"model_weights/{layer.name}/{layer.name}/{variable.name}:0"
            variable.assign(decoded.get(name, variable.numpy()))
    x = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    outputs = keras.models.load_model(target, compile=False).predict(x, verbose=0)
    np.testing.assert_array_equal(outputs, reference.predict(x, verbose=0))
