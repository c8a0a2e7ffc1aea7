"""What must not change in checkpoints of TensorFlow, and names that do not depend on values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
from annex_tests.support.tensorflow_files import RNG, case, checkpoint, values
from nnc_adapters.tensorflow import TensorflowAdapter


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
