"""Files of TensorFlow and Keras as practitioners have them: nothing is refused without need."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest

import nnc_adapters
from annex_tests.support.handmade_tensorflow import (
    HEADER,
    MAGIC,
    contents,
    entry,
    graph,
    handle,
    index,
    message,
    saved_graph,
    sealed,
    snappied,
    with_index,
)
from annex_tests.support.tensorflow_files import RNG, case, checkpoint, h5py
from nnc_adapters.tensorflow import TensorflowAdapter, table
from nnc_adapters.tensorflow.fingerprint import fingerprint64
from nnc_core import Limits
from nnc_core.errors import ModelError, UnsupportedError


@pytest.mark.parametrize("everything", [False, True], ids=["entries", "entries and index"])
def test_a_compressed_index_is_read(tmp_path, through, everything):
    arrays = {f"{'layer/' * 9}{n:03}".encode(): RNG.standard_normal((8, 8), np.float32) for n in range(40)}
    folder = checkpoint(tmp_path / "m", arrays)
    plain = TensorflowAdapter().read(folder)
    compress_index(folder / "c.index", everything)
    model = TensorflowAdapter().read(folder)
    assert list(model.tensors) == list(plain.tensors)
    TensorflowAdapter().write(model.tensors, model.topology, tmp_path / "same")
    assert (tmp_path / "same" / "c.index").read_bytes() == (folder / "c.index").read_bytes()
    restored = TensorflowAdapter().tensors(through(folder))
    for key, array in arrays.items():
        assert 0 < np.abs(restored[key.decode()] - array).max() < 0.1


def compress_index(path, everything):
    """Make the index a table of blocks that snappy compressed."""
    pairs = [(b"", HEADER), *((e.key, bytes(path.read_bytes()[e.start : e.end])) for e in list(_entries(path))[1:])]
    blocks = [contents(pairs[at : at + 10]) for at in range(0, len(pairs), 10)]
    packed = [sealed(snappied(data), kind=1) for data in blocks]
    ends = np.cumsum([len(block) for block in packed])
    handles = [handle(int(end) - len(b), len(b) - 5) for end, b in zip(ends, packed, strict=True)]
    index = contents((bytes([97 + n]), place) for n, place in enumerate(handles))
    if not everything:
        path.write_bytes(with_index(b"".join(packed), index))
        return
    last = sealed(snappied(index), kind=1)
    footer = (handle(0, 0) + handle(int(ends[-1]), len(last) - 5)).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    path.write_bytes(b"".join(packed) + last + footer)


def _entries(path):
    return table.entries(memoryview(path.read_bytes()), Limits())


@pytest.mark.filterwarnings("ignore")
def test_a_reported_compressed_index_is_read(tf, through):
    path = case("saved_model_snappy_index")
    before, after = (tf.train.load_checkpoint(str(p / "variables" / "variables")) for p in (path, through(path)))
    for name in before.get_variable_to_shape_map():
        assert before.get_tensor(name) == after.get_tensor(name)


LAYOUTS = {
    "chunked": {"chunks": (7, 9)},
    "whole rows in chunks": {"chunks": (32, 64)},
    "deflated": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "contiguous": {},
}


def keras_file(path, user=0, dtype="f4", **layout):
    """A file as Keras made them, with attributes and links of several kinds."""
    weight = RNG.standard_normal((64, 64)).astype("f4")
    with h5py.File(path, "w", userblock_size=user) as file:
        file.attrs["keras_version"] = "2.2"
        file.attrs["layer_names"] = np.array(["d", "\u00fc"], dtype=object)
        file.attrs["fixed"] = np.bytes_(b"abc")
        file.attrs["nothing"] = h5py.Empty("f")
        group = file.create_group("d", track_order=True)
        group.attrs["weight_names"] = np.array([b"d/kernel:0"])
        group.create_dataset("z", data=weight.astype(dtype), **layout).attrs["note"] = 1
        group.create_dataset("a", data=weight[::-1].astype(dtype), **layout)
        group["same"] = group["z"]
        group["soft"] = h5py.SoftLink("/d/a")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["texts"] = np.array(["a", "b"], dtype=object)
    if user:
        with path.open("r+b") as stream:
            stream.write(b"a block of the user")
    return weight


@pytest.mark.parametrize("user", [0, 512, 4096])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_hdf5_are_coded_however_they_lie(tmp_path, through, layout, user):
    weight = keras_file(tmp_path / "m.h5", user, **LAYOUTS[layout])
    model = TensorflowAdapter().read(tmp_path / "m.h5")
    assert {array.shape for array in model.tensors.values()} == {(64, 64)}
    assert len(model.tensors) == 2
    restored = through(tmp_path / "m.h5")
    assert (tmp_path / "m.nnr").stat().st_size < 2 * 64 * 64 * 4 / 2
    assert restored.read_bytes()[:19] == (tmp_path / "m.h5").read_bytes()[:19]
    with h5py.File(tmp_path / "m.h5") as before, h5py.File(restored) as after:
        assert 0 < np.abs(after["d/z"][...] - weight).max() < 0.1
        assert list(after) == list(before)
        assert list(after["d"]) == list(before["d"])
        assert after["d/same"] == after["d/z"]
        assert after["d"].get("soft", getlink=True).path == "/d/a"
        assert after.get("elsewhere", getlink=True).filename == "other.h5"
        assert list(after["texts"].asstr()) == ["a", "b"]
        assert after["d/z"].attrs["note"] == 1
        assert {name: str(value) for name, value in after.attrs.items()} == {n: str(v) for n, v in before.attrs.items()}
        assert [after.attrs.get_id(n).dtype for n in after.attrs] == [
            before.attrs.get_id(n).dtype for n in before.attrs
        ]


def big_endian(file):
    file["w"] = RNG.standard_normal((64, 64)).astype(">f4")


def within_a_header(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((64, 64))
    made = h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, space, plan)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, RNG.standard_normal((64, 64)).astype("f4"))


def of_another_program(file):
    file.create_dataset("net/w", data=RNG.standard_normal((64, 64)).astype("f4"), compression="gzip")


@pytest.mark.parametrize("fill", [big_endian, within_a_header, of_another_program])
def test_weights_in_hdf5_are_coded_whatever_wrote_them(tmp_path, through, fill):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        fill(file)
    (name,) = TensorflowAdapter().read(tmp_path / "m.h5").tensors
    with h5py.File(tmp_path / "m.h5") as before, h5py.File(through(tmp_path / "m.h5")) as after:
        assert 0 < np.abs(after[name][...] - before[name][...]).max() < 0.1
    assert (tmp_path / "m.nnr").stat().st_size < 64 * 64 * 4 / 2


@pytest.mark.filterwarnings("ignore")
def test_weights_alone_get_the_suffix_that_keras_wants(tf, tmp_path):
    import keras

    network = keras.Sequential([keras.layers.Input((32,), name="in"), keras.layers.Dense(64, name="one")], name="mine")
    network.save_weights(tmp_path / "m.weights.h5")
    nnc_adapters.compress(tmp_path / "m.weights.h5", tmp_path / "other.nnr")
    restored = nnc_adapters.decompress(tmp_path / "other.nnr").target
    assert restored.name == "other.weights.h5"
    network.load_weights(restored)


def test_a_file_that_is_not_in_chunks_is_the_same_to_the_last_byte(tmp_path):
    keras_file(tmp_path / "m.h5", 512)
    model = TensorflowAdapter().read(tmp_path / "m.h5")
    TensorflowAdapter().write(model.tensors, model.topology, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "m.h5").read_bytes()


def test_a_dataset_that_would_become_huge_stays_as_it_is(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "2.2"
        file.create_dataset("d", shape=(1 << 20, 1 << 12), dtype="f4", chunks=(64, 64), compression="gzip")[:64] = 1
    assert not TensorflowAdapter().read(tmp_path / "m.h5").tensors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_bfloat16_of_keras_is_coded(tf, tmp_path, through, suffix):
    import keras

    dense = keras.layers.Dense  # with names, so that those of others remain as they are
    layers = [dense(64, dtype="bfloat16", name="one"), dense(8, name="two")]
    network = keras.Sequential([keras.layers.Input((32,), name="in"), *layers], name="mine")
    path = tmp_path / f"m{suffix}"
    network.save(path) if suffix == ".keras" else network.save_weights(path)
    assert TensorflowAdapter().read(path).tensors["layers/dense/vars/0"].dtype.name == "bfloat16"
    restored = through(path)
    before = [np.asarray(w.value, "f4") for w in network.weights]
    network.set_weights([np.zeros(w.shape) for w in network.weights])
    if suffix == ".keras":
        network = keras.saving.load_model(restored)
    else:
        network.load_weights(restored)
    for weight, old in zip(network.weights, before, strict=True):
        assert np.abs(np.asarray(weight.value, "f4") - old).max() < 0.05


@pytest.mark.parametrize("name", ["bfloat16.keras", "bfloat16.weights.h5", "chunked.h5", "userblock.h5"])
def test_reported_files_of_keras_are_coded(tmp_path, through, name):
    path = case(name)
    assert TensorflowAdapter().read(path).tensors
    restored = through(path)
    assert TensorflowAdapter().read(restored).tensors.keys() == TensorflowAdapter().read(path).tensors.keys()
    assert (tmp_path / "m.nnr").stat().st_size < path.stat().st_size / 2


def weights_of(path, values):
    """The two constants in a graph that `handmade_tensorflow.graph` made."""
    data, size = path.read_bytes(), values.nbytes
    places = [at for at in range(len(data)) if data.startswith(b"\x22\x80\x80\x04", at)]
    return [
        np.frombuffer(data, "f4", values.size, at + 4).reshape(values.shape)
        for at in places
        if at + 4 + size <= len(data)
    ]


@pytest.mark.parametrize("kind", ["frozen", "saved model"])
def test_weights_that_are_constants_of_a_graph_are_coded(tmp_path, through, kind):
    values = RNG.standard_normal((128, 128), np.float32)
    if kind == "frozen":
        path = tmp_path / "m.pb"
        path.write_bytes(graph(values))
    else:
        path = tmp_path / "m"
        path.mkdir()
        (path / "saved_model.pb").write_bytes(saved_graph(values))
    model = TensorflowAdapter().read(path)
    assert dict(model.model_info["parameter_type"]) == {"w": "fc.weight"}
    assert dict(model.exact) == {"angle": "constant that is computed with"}
    restored = through(path)
    weight, angle = weights_of(restored if kind == "frozen" else restored / "saved_model.pb", values)
    assert 0 < np.abs(weight - values).max() < 0.1
    np.testing.assert_array_equal(angle, values)


def test_a_fingerprint_stays_true(tmp_path, through):
    folder = checkpoint(tmp_path / "m" / "variables", {b"w": RNG.standard_normal((64, 64), np.float32)})
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("c.", "variables."))
    root = folder.parent
    index = (folder / "variables.index").read_bytes()
    (root / "saved_model.pb").write_bytes(saved_graph(RNG.standard_normal((64, 64), np.float32)))
    fields = (
        message((1, 5)),
        message((2, 6)),
        message((3, 7)),
        message((5, fingerprint64(index))),
        message((7, b"id")),
    )
    (root / "fingerprint.pb").write_bytes(b"".join(fields))
    model = TensorflowAdapter().read(root)
    TensorflowAdapter().write(model.tensors, model.topology, tmp_path / "same")
    assert (tmp_path / "same" / "fingerprint.pb").read_bytes() == b"".join(fields)
    restored = through(root)
    hashed = fingerprint64((restored / "variables" / "variables.index").read_bytes())
    assert hashed != fingerprint64(index)
    assert (restored / "fingerprint.pb").read_bytes() == b"".join((fields[2], message((5, hashed)), fields[4]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 16, 17, 32, 33, 64, 65, 128, 129, 1000])
def test_a_fingerprint_is_that_of_tensorflow(tf, size):
    data = RNG.bytes(size)
    assert fingerprint64(data).to_bytes(8, "little") == bytes(tf.fingerprint([data])[0].numpy())


@pytest.mark.filterwarnings("ignore")
def test_reported_constants_are_coded(tf, tmp_path, through):
    path = case("saved_model_constants")
    restored = through(path)
    assert (tmp_path / "m.nnr").stat().st_size < 0.3 * (path / "saved_model.pb").stat().st_size
    before, after = (tf.saved_model.load(str(p)).signatures["serving_default"] for p in (path, restored))
    (name,) = before.structured_input_signature[1]
    x = tf.constant(RNG.standard_normal((2, 256), np.float32))
    one, other = (next(iter(f(**{name: x}).values())).numpy() for f in (before, after))
    assert 0 < np.linalg.norm(one - other) < 0.05 * np.linalg.norm(one)
    index = (restored / "variables" / "variables.index").read_bytes()
    assert tf.saved_model.experimental.read_fingerprint(str(restored)).checkpoint_hash == fingerprint64(index)


@pytest.mark.filterwarnings("ignore")
def test_where_operations_come_from_can_be_left_behind(tmp_path):
    values = RNG.standard_normal((128, 128), np.float32)
    (tmp_path / "m" / "debug").mkdir(parents=True)
    (tmp_path / "m" / "debug" / "saved_model_debug_info.pb").write_bytes(b"traces" * 100)
    origin = message((6, message((1, b"a line of a file somewhere"))))
    nodes = message((1, message((1, b"a"), (2, b"NoOp")) + origin))
    inner = message((2, message((1, message((1, message((1, b"f"))), (3, message((1, b"b"), (2, b"NoOp")) + origin))))))
    extra = message((2, message((2, nodes + inner))))
    (tmp_path / "m" / "saved_model.pb").write_bytes(saved_graph(values) + extra)
    (tmp_path / "m" / "fingerprint.pb").write_bytes(message((1, 5), (2, 6), (3, 7)))
    report = nnc_adapters.compress(tmp_path / "m", tmp_path / "m.nnr", strip_debug=True)
    assert any("left behind" in warning for warning in report.warnings)
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    assert not (tmp_path / "out" / "debug" / "saved_model_debug_info.pb").exists()
    assert b"somewhere" not in (tmp_path / "out" / "saved_model.pb").read_bytes()
    assert (tmp_path / "out" / "fingerprint.pb").read_bytes() == message((3, 7))
    weight, _ = weights_of(tmp_path / "out" / "saved_model.pb", values)
    assert np.abs(weight - values).max() < 0.1


@pytest.mark.parametrize("as_folder", [False, True])
def test_shards_of_keras_are_read(tmp_path, through, as_folder):
    root = tmp_path / "m"
    root.mkdir()
    for number in range(2):
        with h5py.File(root / f"m_{number}.weights.h5", "w") as file:
            file[f"layers/dense_{number}/vars/0"] = RNG.standard_normal((64, 64), np.float32)
    names = {f"/layers/dense_{number}/vars": [f"m_{number}.weights.h5"] for number in range(2)}
    (root / "m.weights.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    path = root if as_folder else root / "m.weights.json"
    assert list(TensorflowAdapter().read(path).tensors) == ["layers/dense_0/vars/0", "layers/dense_1/vars/0"]
    restored = through(path)
    assert {p.name for p in restored.iterdir()} == {p.name for p in root.iterdir()}
    (root / "m_1.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"m_1\.weights"):
        through(path)


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_checkpoint_of_version_1_is_named_with_what_to_do(tmp_path, as_folder):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    (tmp_path / "m" / "model.ckpt").write_bytes(index((b"w", entry())))
    with pytest.raises(UnsupportedError, match=r"before 2017; convert it: .*SaveV2"):
        nnc_adapters.compress(tmp_path / "m" if as_folder else tmp_path / "m" / "model.ckpt", tmp_path / "m.nnr")


@pytest.mark.filterwarnings("ignore")
def test_the_hint_for_a_reported_checkpoint_of_version_1_converts_it(tf, tmp_path, monkeypatch):
    path = case("checkpoint_v1/model.ckpt")
    with pytest.raises(UnsupportedError) as caught:
        nnc_adapters.compress(path, tmp_path / "m.nnr")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("convert it: ")[2], {"tf": tf, "file": str(path)})
    assert TensorflowAdapter().read(tmp_path / "converted.index").tensors


def test_integers_of_a_tflite_model_never_take_more_bytes_than_zipped(tmp_path, through):
    path = case("person_detect_int8.tflite")
    restored = through(path)
    assert restored.read_bytes() == path.read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, path.name)
    assert (tmp_path / "m.nnr").stat().st_size <= len(zipped.getvalue())
