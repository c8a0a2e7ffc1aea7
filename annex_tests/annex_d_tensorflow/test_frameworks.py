"""TensorFlow and Keras load what was written, and predict as the coded weights say."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def expected(tf, network, image):
    """What the network predicts with other weights, given by the last part of their names."""

    def predict(decoded):
        import keras

        twin = keras.models.clone_model(network)
        by_path = {v.path: v for v in network.weights}
        for old, new in zip(network.weights, twin.weights, strict=True):
            new.assign(decoded.get(old.path, by_path[old.path].numpy()))
        return twin.predict(image, verbose=0)

    return predict


def by_path(network, decoded, key_of):
    return {v.path: decoded[key_of(v)] for v in network.weights if key_of(v) in decoded}


def test_an_exported_model(tf, saved, coded, expected, image):
    target, decoded = coded(saved("export"))
    model = tf.saved_model.load(target)
    outputs = model.serve(image)
    np.testing.assert_allclose(outputs, expected(decoded), rtol=0, atol=1e-6)


def test_a_saved_model(tf, saved, coded, expected, image):
    target, decoded = coded(saved("saved_model"))
    model = tf.saved_model.load(target)
    (outputs,) = model.signatures["serving_default"](inputs=image).values()
    np.testing.assert_allclose(outputs, expected(decoded), rtol=0, atol=1e-6)


def test_a_module_of_every_type(tf, saved, coded, adapter):
    target, _ = coded(saved("module"))
    values = adapter.read(target).tensors
    module = tf.saved_model.load(target)
    x = np.random.default_rng(2).random((3, 16), np.float32)
    bias = values["w_bfloat16"][0].astype(np.float32)
    np.testing.assert_allclose(module(x), x @ values["w_float32"] + bias, rtol=1e-5)
    for name, array in values.items():
        np.testing.assert_array_equal(module.w[name.removeprefix("w_")].numpy(), array)


def test_a_checkpoint(tf, saved, coded, expected, network, image):
    import keras

    target, decoded = coded(saved("checkpoint"))
    twin = keras.models.clone_model(network)
    twin.compile("adam", "mse")
    twin.optimizer.build(twin.trainable_variables)
    status = tf.train.Checkpoint(model=twin, optimizer=twin.optimizer).restore(str(target / "c-1"))
    status.assert_existing_objects_matched()
    np.testing.assert_array_equal(twin.predict(image, verbose=0), expected(decoded))
    for old, new in zip(network.optimizer.variables, twin.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())


@pytest.mark.parametrize("kind", ["model.keras", "model.h5"])
def test_a_keras_file(tf, saved, coded, expected, network, image, kind):
    import keras

    target, decoded = coded(saved(kind))
    loaded = keras.models.load_model(target)
    assert len(decoded) == 9
    mine = {old.path: new.numpy() for old, new in zip(network.weights, loaded.weights, strict=True)}
    for path, array in mine.items():
        assert path.endswith("/bias") or any(np.array_equal(array, other) for other in decoded.values())
    np.testing.assert_array_equal(loaded.predict(image, verbose=0), expected(mine))
    assert loaded.optimizer.iterations.numpy() == 1


def test_a_file_of_weights(tf, saved, coded, expected, network, image):
    import keras

    target, decoded = coded(saved("model.weights.h5"))
    twin = keras.models.clone_model(network)
    twin.load_weights(target)
    mine = by_path(network, decoded, lambda v: f"layers/{v.path.split('/')[1]}/vars/{position(network, v)}")
    assert len(mine) == len(decoded)
    np.testing.assert_array_equal(twin.predict(image, verbose=0), expected(mine))


def position(network, variable):
    layer = next(layer for layer in network.layers if any(variable is v for v in layer.weights))
    return next(n for n, v in enumerate(layer.weights) if v is variable)


def test_a_recurrent_network(tf, saved, coded):
    import keras

    target, decoded = coded(saved("recurrent.keras"))
    loaded = keras.models.load_model(target)
    for array in (v.numpy() for v in loaded.weights if v.shape.num_elements() >= 16):
        assert any(np.array_equal(array, other) for other in decoded.values())
    assert np.isfinite(loaded.predict(np.zeros((1, 12), np.int32), verbose=0)).all()


@pytest.mark.parametrize("kind", ["model.tflite", "half.tflite"])
def test_a_tflite_model(tf, saved, coded, image, kind):
    target, decoded = coded(saved(kind))
    reference = repacked(saved(kind).read_bytes(), decoded)
    outputs, values = run(tf, target.read_bytes(), image, decoded)
    np.testing.assert_array_equal(outputs, run(tf, reference, image, decoded)[0])
    assert not np.array_equal(outputs, run(tf, saved(kind).read_bytes(), image, decoded)[0])
    for name, array in decoded.items():
        np.testing.assert_array_equal(values[name], array.astype(values[name].dtype))


def repacked(data, decoded):
    """The model with other values, by the schema that TensorFlow brings."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    for tensor in model.subgraphs[0].tensors:
        if tensor.name.decode() in decoded:
            values = decoded[tensor.name.decode()].astype(types[tensor.type])
            model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(tf, data, image, names):
    interpreter = tf.lite.Interpreter(model_content=data, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.resize_tensor_input(0, image.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    values = {
        d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details() if d["name"] in names
    }
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), values
