"""Files of TensorFlow and Keras as practitioners have them: nothing is damaged, nothing is refused without need."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
from pathlib import Path

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
from nnc_adapters.tensorflow import TensorflowAdapter, table
from nnc_adapters.tensorflow.fingerprint import fingerprint64
from nnc_core import Limits
from nnc_core.errors import ModelError, UnsupportedError

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

SHARED = Path(os.environ.get("NNC_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "cases"
RNG = np.random.default_rng(11)


def case(name):
    """One of the inputs that came with a report."""
    path = SHARED / "tensorflow" / name
    if not path.exists():
        pytest.skip(f"there is no {path}; set NNC_SHARED")
    return path


@pytest.fixture(scope="session")
def tf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("tensorflow", reason="tensorflow-cpu is not installed")
        found.config.threading.set_intra_op_parallelism_threads(1)
        found.config.threading.set_inter_op_parallelism_threads(1)
        import keras  # noqa: F401
    return found


@pytest.fixture
def through(tmp_path):
    """A model after compressing and decompressing; what was done in between is in ``m.nnr``."""

    def call(path, **options):
        target = tmp_path / "restored" / path.name.removesuffix(".weights.json")
        target.parent.mkdir(exist_ok=True)
        nnc_adapters.compress(path, tmp_path / "m.nnr", force=True, **options)
        nnc_adapters.decompress(tmp_path / "m.nnr", target, force=True)
        return target

    return call


def checkpoint(folder, arrays):
    """A checkpoint with these arrays by their keys."""
    folder.mkdir(parents=True)
    data, pairs = b"", []
    for key, array in sorted(arrays.items()):
        pairs.append((key, entry(array, offset=len(data))))
        data += array.tobytes()
    (folder / "c.data-00000-of-00001").write_bytes(data)
    (folder / "c.index").write_bytes(index(*pairs))
    return folder


def values(path, arrays):
    """The arrays in a checkpoint that `checkpoint` made."""
    data, at, found = next(path.glob("*.data-*")).read_bytes(), 0, {}
    for key, array in sorted(arrays.items()):
        found[key] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
        at += array.nbytes
    return found


# --- optimizers ------------------------------------------------------------------------------------------------------


def part(name, row):
    """The key of a part of a matrix of 128 columns: 64 rows from ``row``, in TensorFlow's code that keeps the order."""
    first = b"\x80" if row == 0 else b"\xc0\x40"
    return b"\0" + name + b"\0\1" + b"\x01\x02" + first + b"\xc0\x40" + b"\x80" + b"\xc0\x80"


SLOTS = [
    *(
        (f"w/{slot}", f"w/{slot}_1")
        for slot in ("Adam", "AdamW", "AdaMax", "LazyAdam", "LAMB", "AdamWeightDecayOptimizer")
    ),
    *((f"w/{slot}", f"w/{slot}_1") for slot in ("RMSProp", "Ftrl", "LARSOptimizer", "Adadelta", "NadamOptimizer")),
    ("w/Momentum", "w/Adagrad"),
    ("w/adam_m", "w/adam_v"),
    ("w/lamb_m", "w/lamb_v"),
    ("w_slot_vr", "w_slot_vc"),
    (
        "w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE",
        "w/.OPTIMIZER_SLOT/optimizer/v/.ATTRIBUTES/VARIABLE_VALUE",
    ),
    ("optimizer/m/0", "optimizer/v/0"),
    (part(b"w/Adam", 0), part(b"w/Adam_1", 0)),
    (part(b"w/adam_m", 64), part(b"w/adam_v", 64)),
]


def with_slots(folder, first, second):
    """A checkpoint with a weight, and two moments whose magnitudes no weight has."""
    keys = [key if isinstance(key, bytes) else key.encode() for key in (first, second)]
    weight = RNG.standard_normal((64, 128), np.float32)
    tiny = (1e-12 * RNG.random((64, 128)) ** 8).astype(np.float32)
    arrays = {b"w": weight, keys[0]: 1e-6 * RNG.standard_normal((64, 128), np.float32), keys[1]: tiny}
    return checkpoint(folder, arrays), arrays, keys


@pytest.mark.parametrize(("first", "second"), SLOTS)
def test_what_an_optimizer_keeps_is_exact_by_all_usual_names(tmp_path, through, first, second):
    path, arrays, keys = with_slots(tmp_path / "m", first, second)
    restored = values(through(path), arrays)
    for key in keys:
        assert restored[key].tobytes() == arrays[key].tobytes()
    assert restored[b"w"].tobytes() != arrays[b"w"].tobytes()


@pytest.mark.parametrize(("first", "second"), SLOTS)
def test_what_an_optimizer_keeps_is_left_behind_by_all_usual_names(tmp_path, through, first, second):
    path, arrays, keys = with_slots(tmp_path / "m", first, second)
    with_it = nnc_adapters.compress(path, tmp_path / "with.nnr").bytes_after
    restored = values(through(path, keep_optimizer=False), arrays)
    assert not any(restored[key].any() for key in keys)
    assert restored[b"w"].any()
    assert (tmp_path / "m.nnr").stat().st_size < with_it - arrays[b"w"].nbytes


@pytest.mark.parametrize("name", ["w/ExponentialMovingAverage", "w_scalars", "w/lambda", "b/momentums", "w/part"])
def test_other_variables_are_not_left_behind(tmp_path, through, name):
    arrays = {
        b"w": RNG.standard_normal((64, 128), np.float32),
        name.encode(): RNG.standard_normal((64, 128), np.float32),
    }
    restored = values(through(checkpoint(tmp_path / "m", arrays), keep_optimizer=False), arrays)
    assert all(restored[key].any() for key in arrays)


def test_reported_slots_come_back_exactly(through):
    path = case("slots_vr_vc")
    shapes = {b"encoder/block_000/wi/kernel": (256, 256)}
    shapes |= {b"encoder/block_000/wi/kernel_slot_" + slot: (256,) for slot in (b"vc", b"vr")}  # type: ignore[misc]
    arrays = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    before, after = values(path, arrays), values(through(path), arrays)
    for key in list(shapes)[1:]:
        assert before[key].any()
        assert before[key].tobytes() == after[key].tobytes()


@pytest.mark.filterwarnings("ignore")
def test_partitioned_variables_and_their_slots_are_told_by_their_names(tf, tmp_path, through):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("part/w", (60, 20), partitioner=v1.fixed_size_partitioner(2), use_resource=False)
        loss = 1e-3 * tf.reduce_sum(tf.convert_to_tensor(w) ** 2)
        step = v1.train.AdamOptimizer().minimize(loss)
        session.run(v1.global_variables_initializer())
        session.run(step)
        saved = v1.train.Saver().save(session, str(tmp_path / "m" / "c"))
    assert set(TensorflowAdapter().read(tmp_path / "m" / "c.index").tensors) == {"part/w/part", "part/w/part#2"}
    restored = through(Path(saved + ".index"))
    before, after = (tf.train.load_checkpoint(str(p.with_suffix(""))) for p in (Path(saved + ".index"), restored))
    for name in ("part/w/Adam", "part/w/Adam_1"):
        np.testing.assert_array_equal(before.get_tensor(name), after.get_tensor(name))
    assert before.get_tensor("part/w/Adam_1").any()
    dropped = tf.train.load_checkpoint(str(through(Path(saved + ".index"), keep_optimizer=False).with_suffix("")))
    assert not dropped.get_tensor("part/w/Adam_1").any()
    assert dropped.get_tensor("part/w").any()


# --- files of every kind ----------------------------------------------------------------------------------------------


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
    restored = TensorflowAdapter().read(through(folder))
    for key, array in arrays.items():
        assert 0 < np.abs(restored.tensors[key.decode()] - array).max() < 0.1


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


# --- constants, and what a SavedModel says about itself ---------------------------------------------------------------


def weights_of(path, values):
    """The two constants in a graph that `handmade_tensorflow.graph` made."""
    data, size = path.read_bytes(), values.nbytes
    places = [at for at in range(len(data)) if data.startswith(b"\x22\x80\x80\x01", at)]
    return [
        np.frombuffer(data, "f4", values.size, at + 4).reshape(values.shape)
        for at in places
        if at + 4 + size <= len(data)
    ]


@pytest.mark.parametrize("kind", ["frozen", "saved model"])
def test_weights_that_are_constants_of_a_graph_are_coded(tmp_path, through, kind):
    values = RNG.standard_normal((64, 64), np.float32)
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
    values = RNG.standard_normal((64, 64), np.float32)
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


# --- other kinds of files --------------------------------------------------------------------------------------------


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


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_names_of_variables_do_not_depend_on_values(tf, tmp_path):
    names = []
    for fresh in (True, False):
        net = tf.Module()
        for name in "abc":
            value = np.ones((64, 64), np.float32) if fresh else RNG.standard_normal((64, 64), np.float32)
            setattr(net, name, tf.Variable(value))
        tf.train.Checkpoint(net=net).write(str(tmp_path / f"c{fresh}"))
        names.append(list(TensorflowAdapter().read(tmp_path / f"c{fresh}.index").tensors))
    assert names[0] == names[1] == ["net/a", "net/b", "net/c"]


def test_a_trained_model_goes_into_a_fresh_one(tmp_path):
    trained, fresh = case("unnamed_variables_trained"), case("unnamed_variables_fresh")
    nnc_adapters.compress(trained, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "into", into=fresh)
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "whole")
    data = "ck-1.data-00000-of-00001"
    assert (tmp_path / "into" / data).read_bytes() == (tmp_path / "whole" / data).read_bytes()
    nnc_adapters.compress(fresh, tmp_path / "fresh.nnr")
    nnc_adapters.decompress(tmp_path / "fresh.nnr", tmp_path / "back", into=trained)
    assert (tmp_path / "back" / data).read_bytes() == (fresh / data).read_bytes()
