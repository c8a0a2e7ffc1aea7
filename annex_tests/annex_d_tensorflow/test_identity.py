"""Reading a model and writing it again gives the same files, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from nnc_adapters import registry
from nnc_adapters.tensorflow import TensorflowAdapter
from nnc_core.errors import ModelError

KINDS = (
    "export",
    "saved_model",
    "checkpoint",
    "model.keras",
    "model.h5",
    "model.weights.h5",
    "model.tflite",
    "half.tflite",
    "module",
    "recurrent.keras",
)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_written_as_it_was_read(saved, round_trip, kind):
    assert round_trip(saved(kind)).tensors


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_finds_the_adapter(saved, kind):
    assert registry.find(saved(kind)).name == "tensorflow"


def test_everything_works_without_tensorflow(saved, tmp_path):
    script = """
import sys
sys.modules.update(tensorflow=None, keras=None, tf_keras=None, google=sys.modules.get("google"))
from pathlib import Path
import nnc_adapters
for number, source in enumerate(map(Path, sys.argv[2:])):
    bitstream = Path(sys.argv[1], f"{number}.nnr")
    nnc_adapters.compress(source, bitstream)
    report = nnc_adapters.decompress(bitstream, Path(sys.argv[1], source.name))
    assert report.tensors > 0, source
    nnc_adapters.decompress(bitstream, Path(sys.argv[1], "into-" + source.name), into=source)
assert sys.modules["tensorflow"] is None
"""
    kinds = [str(saved(kind)) for kind in KINDS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path), *kinds], check=True, env=environment)
    assert (tmp_path / "saved_model" / "saved_model.pb").is_file()


def test_the_index_of_a_checkpoint_stands_for_all_its_files(saved, round_trip, tmp_path):
    model = round_trip(saved("checkpoint") / "c-1.index")
    assert set(model.tensors) == set(TensorflowAdapter().read(saved("checkpoint")).tensors)
    assert sorted(p.name for p in (tmp_path / "written").iterdir()) == ["c-1.data-00000-of-00001", "c-1.index"]


def test_a_checkpoint_gets_the_name_that_is_asked_for(saved, adapter, tmp_path):
    model = adapter.read(saved("checkpoint") / "c-1.index")
    adapter.write(model.tensors, model.topology, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.data-00000-of-00001", "other.index"]


@pytest.mark.parametrize("count", [2, 3])
def test_variables_in_several_data_files(tf, tmp_path, round_trip, count):
    weights = {f"w{n}": np.random.default_rng(n).random((8, 8), np.float32) for n in range(5)}
    parts = [str(tf.raw_ops.ShardedFilename(basename=str(tmp_path / "t"), shard=n, num_shards=count).numpy(), "ascii")
             for n in range(count)]  # fmt: skip
    for n, part in enumerate(parts):
        mine = [name for k, name in enumerate(weights) if k % count == n]
        tf.raw_ops.SaveV2(
            prefix=part, tensor_names=mine, shape_and_slices=[""] * len(mine), tensors=[weights[k] for k in mine]
        )
    folder = tmp_path / "sharded"
    folder.mkdir()
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(folder / "m"), delete_old_dirs=False
    )
    assert len(list(folder.glob("*.data-*"))) == count
    for name, array in round_trip(folder).tensors.items():
        np.testing.assert_array_equal(array, weights[name])
    round_trip(folder / "m.index")


def test_an_index_of_several_blocks(tf, tmp_path, adapter, round_trip):
    names = [f"{'layer/' * 20}{n:05d}" for n in range(12000)]
    arrays = [np.full(16, n, np.float32) for n in range(len(names))]
    (tmp_path / "many").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "many" / "m"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=arrays
    )
    round_trip(tmp_path / "many")
    assert list(adapter.tensors(tmp_path / "many")) == names


def test_a_variable_that_is_saved_in_parts(tf, tmp_path, round_trip):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", (30, 8), partitioner=tf.compat.v1.fixed_size_partitioner(3))
        session.run(tf.compat.v1.global_variables_initializer())
        whole = np.concatenate(session.run(tf.compat.v1.global_variables()))
        (tmp_path / "parts").mkdir()
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "parts" / "m"), write_meta_graph=False)
    tensors = round_trip(tmp_path / "parts").tensors
    assert list(tensors) == ["w/part", "w/part#2", "w/part#3"]
    np.testing.assert_array_equal(np.concatenate(list(tensors.values())), whole)


def test_assets_and_empty_folders_stay(saved, copy_of, round_trip):
    folder = copy_of(saved("export"))
    (folder / "assets" / "words.txt").write_text("one\ntwo\n")
    (folder / "assets" / "deep" / "empty").mkdir(parents=True)
    round_trip(folder)


def test_a_saved_model_without_variables(saved, copy_of, round_trip):
    folder = copy_of(saved("export"))
    shutil.rmtree(folder / "variables")
    assert not round_trip(folder).tensors


def test_a_folder_with_several_checkpoints_is_refused(saved, copy_of, adapter):
    folder = copy_of(saved("checkpoint"))
    for file in list(folder.glob("c-1.*")):
        shutil.copy(file, folder / file.name.replace("c-1", "c-2"))
    with pytest.raises(ModelError, match=r"c-1\.index, c-2\.index"):
        adapter.read(folder)


def test_a_compressed_archive_is_read_and_compressed_again(saved, tmp_path, adapter):
    source, target = tmp_path / "small.keras", tmp_path / "again.keras"
    with zipfile.ZipFile(saved("model.keras")) as old, zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    model = adapter.read(source)
    adapter.write(model.tensors, model.topology, target)
    assert members(target) == members(source)
    np.testing.assert_array_equal(
        model.tensors["layers/conv2d/vars/0"], adapter.read(saved("model.keras")).tensors["layers/conv2d/vars/0"]
    )


def members(path: Path) -> dict[str, tuple[object, ...]]:
    with zipfile.ZipFile(path) as archive:
        return {m.filename: (archive.read(m), m.compress_type, m.date_time) for m in archive.infolist()}


def test_datasets_that_are_not_plain_arrays_stay_exact(tmp_path, round_trip):
    values = np.random.default_rng(1).random((64, 64), np.float32)
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file.attrs["keras_version"] = "3"
        file["plain"] = values
        file["text"] = "some text"
        file["empty"] = np.zeros((0, 4), np.float32)
        file.create_dataset("without values", (64, 64), "f4")
        file["link"] = h5py.SoftLink("/plain")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/plain")
        file["again"] = file["plain"]

    assert len(round_trip(tmp_path / "source.h5").tensors) == 1


def test_integers_are_coded_and_what_cannot_be_is_not(saved, round_trip):
    tensors = round_trip(saved("module")).tensors
    assert {array.dtype.name for array in tensors.values()} == {
        *("float32", "float16", "float64", "bfloat16"),
        *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"),
    }
