"""What coding changes in a model, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters.api import write_into
from nnc_adapters.base import Options
from nnc_adapters.shared.dtypes import converted
from nnc_core.errors import ModelError
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

KINDS = ("export", "saved_model", "checkpoint", "model.keras", "model.h5", "model.weights.h5", "model.tflite", "module")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", KINDS)
def test_coding_changes_only_the_coded_values(saved, coded, adapter, exact_parts, kind):
    before = adapter.read(saved(kind))
    target, decoded = coded(saved(kind))
    after = adapter.read(target)
    assert exact_parts(after) == exact_parts(before)
    assert list(after.tensors) == list(before.tensors) == list(decoded)
    for name, array in after.tensors.items():
        assert array.dtype == before.tensors[name].dtype
        np.testing.assert_array_equal(array, converted(decoded[name], array.dtype), strict=True)


def test_a_variable_that_is_stored_twice_is_coded_once(tf, saved, coded, adapter):
    target, decoded = coded(saved("export"))
    reader = tf.train.load_checkpoint(str(target / "variables" / "variables"))
    kernels = [
        reader.get_tensor(key) for key, shape in reader.get_variable_to_shape_map().items() if shape == [3, 3, 3, 16]
    ]
    assert len(kernels) == 2
    for kernel in kernels:
        np.testing.assert_array_equal(kernel, decoded["sequential/conv2d/kernel"])


def test_variables_that_only_look_alike_stay_apart(tf, adapter, tmp_path):
    class Module(tf.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.a = tf.Variable(tf.ones([16]), name="a")
            self.b = tf.Variable(tf.ones([16]), name="b")
            self.c = tf.Variable(tf.ones([16]))
            self.d = tf.Variable(tf.zeros([16]))

    tf.saved_model.save(Module(), tmp_path / "m")
    assert set(adapter.read(tmp_path / "m").tensors) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("kind", ["saved_model", "checkpoint", "model.keras", "model.h5", "model.weights.h5"])
def test_what_an_optimizer_remembers_is_kept(saved, adapter, kind):
    names = list(adapter.read(saved(kind)).tensors)
    assert len(names) == 9
    assert not [name for name in names if "moment" in name or "velocity" in name or name.startswith("optimizer")]


@pytest.mark.parametrize("kind", ["saved_model", "checkpoint", "model.keras", "model.h5", "model.weights.h5"])
def test_an_optimizer_can_be_left_behind(saved, adapter, coded, kind):
    forgetful = Options(keep_optimizer=False)
    target, decoded = coded(saved(kind), forgetful)
    kept, left = adapter.read(saved(kind)).topology.data, adapter.read(saved(kind), forgetful).topology.data
    weights = sum(array.size for array in decoded.values())
    assert len(kept) - len(left) > 1.5 * 4 * weights
    for name, array in adapter.read(target).tensors.items():
        np.testing.assert_array_equal(array, decoded[name])


def test_an_optimizer_that_was_left_behind_starts_afresh(tf, saved, coded):
    target, _ = coded(saved("checkpoint"), Options(keep_optimizer=False))
    before, after = (tf.train.load_checkpoint(str(folder / "c-1")) for folder in (saved("checkpoint"), target))
    for key, shape in before.get_variable_to_shape_map().items():
        if key.startswith("optimizer/_variables/") and shape:
            assert not after.get_tensor(key).any()
        elif key.startswith("optimizer/") and "_trainable_" not in key:
            np.testing.assert_array_equal(after.get_tensor(key), before.get_tensor(key))
    assert after.get_tensor("optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_written_into_an_existing_model(saved, adapter, tmp_path, kind):
    values = dict(adapter.read(saved(kind)).tensors)
    name = next(iter(values))
    write_into(adapter, {name: np.zeros_like(values[name])}, saved(kind), tmp_path / "new")
    # the name of a checkpoint's folder or of a file says nothing
    after = adapter.read(tmp_path / "new").tensors
    assert not after[name].any()
    for other in values.keys() - {name}:
        np.testing.assert_array_equal(after[other], values[other])


def test_small_tensors_can_be_written_into_an_existing_model(saved, adapter, tmp_path):
    write_into(adapter, {"sequential/dense/bias": np.ones(10, np.float32)}, saved("export"), tmp_path / "new")
    changed = (tmp_path / "new" / "variables" / "variables.data-00000-of-00001").read_bytes()
    before = (saved("export") / "variables" / "variables.data-00000-of-00001").read_bytes()
    assert changed.count(np.ones(10, np.float32).tobytes()) == before.count(np.ones(10, np.float32).tobytes()) + 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_existing_model_is_replaced_only_by_force(saved, adapter, tmp_path, kind):
    model = adapter.read(saved(kind))
    target = tmp_path / saved(kind).name
    adapter.write(model.tensors, model.topology, target)
    with pytest.raises(FileExistsError):
        adapter.write(model.tensors, model.topology, target)
    adapter.write(model.tensors, model.topology, target, force=True)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_values_are_rounded_to_the_type_of_the_model(saved, adapter, tmp_path):
    model = adapter.read(saved("module"))
    values = {n: a.astype(np.float64) * 1.001 if a.dtype.kind not in "iu" else a for n, a in model.tensors.items()}
    adapter.write(values, model.topology, tmp_path / "new")
    after = adapter.read(tmp_path / "new").tensors
    assert {n: a.dtype for n, a in after.items()} == {n: a.dtype for n, a in model.tensors.items()}
    np.testing.assert_array_equal(after["w_float16"], values["w_float16"].astype(np.float16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("sequential/conv2d/kernel"), "needs this tensor"),
        (lambda t: t.update(other=np.zeros(16, np.float32)), "no place for this tensor"),
        (lambda t: t.update({"sequential/conv2d/kernel": np.zeros((3, 3), np.float32)}), "has shape"),
        (lambda t: t.update({"sequential/conv2d/kernel": np.zeros((3, 3, 3, 16), np.int32)}), "the model has float32"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(saved, adapter, tmp_path, change, message):
    model = adapter.read(saved("export"))
    tensors = dict(model.tensors)
    change(tensors)
    with pytest.raises(ModelError, match=message):
        adapter.write(tensors, model.topology, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_topology_of_tensorflow_is_needed(adapter, tmp_path):
    with pytest.raises(ModelError, match="the topology is of storage format"):
        adapter.write({}, Topology(TopologyStorageFormat.NNR_TPL_ONNX, b""), tmp_path / "new")


def test_a_tensor_is_asked_for_once_however_often_it_is_stored(saved, adapter, tmp_path):
    model = adapter.read(saved("export"))
    asked = []

    class Counted(dict):
        def __getitem__(self, name):
            asked.append(name)
            return model.tensors[name]

    adapter.write(Counted.fromkeys(model.tensors), model.topology, tmp_path / "new")
    assert asked == list(model.tensors)


def test_the_bitstream_makes_the_folder_again(saved, tmp_path):
    nnc_adapters.compress(saved("export"), tmp_path / "model.nnr")
    nnc_adapters.decompress(tmp_path / "model.nnr", tmp_path / "model")
    with nnc_core.open(tmp_path / "model.nnr") as file:
        assert file.topology.storage_format == TopologyStorageFormat.NNR_TPL_TEF
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == (saved("export") / "saved_model.pb").read_bytes()
    assert (tmp_path / "model" / "assets").is_dir()
