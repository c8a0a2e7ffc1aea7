"""Weights over a folder: receivers have what was published, late ones catch up, and nothing is announced too early."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import nnc_core
from nnc_adapters import anchors, updates, weight_sync
from nnc_adapters.weight_sync import WeightPublisher, WeightReceiver
from nnc_core import UpdateOptions

Model = dict[str, np.ndarray]


def model(seed: int) -> Model:
    """Version ``seed`` of a model: half of the weights and a counter differ from the version before."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    weights = fixed.normal(0, 0.1, (12, 20)).astype(ml_dtypes.bfloat16)
    weights[::2] = rng.normal(0, 0.1, (6, 20)).astype(ml_dtypes.bfloat16)
    return {
        "z.weight": weights,
        "a.bias": rng.normal(0, 1, 20).astype(np.float32),
        "steps": np.asarray(seed, np.int64),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.float16),
    }


def assert_equal(a: Model, b: Model) -> None:
    assert list(a) == list(b)
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name


def test_an_anchor_keeps_names_order_types_shapes_and_bits() -> None:
    strange = {
        "float8": np.arange(7, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn),
        "nan": np.array([0x7FC00001, 0x80000000], np.uint32).view(np.float32),
        "big": np.array([np.iinfo(np.int64).min, 5], np.int64),
        "unsigned": np.array([[2**64 - 1]], np.uint64),
        "complex": np.array([1 + 2j], np.complex64),
        "scalar": np.asarray(2.5, np.float64),
        **model(3),
    }
    assert_equal(anchors.read_anchor(anchors.write_anchor(strange)), strange)


def test_what_is_not_an_anchor_is_refused() -> None:
    with pytest.raises(nnc_core.ModelError, match="anchor"):
        anchors.read_anchor(nnc_core.encode({"w": np.ones(3, np.float32)}))


@pytest.mark.parametrize("exact", [True, False])
def test_receivers_follow_a_publisher_over_anchors(tmp_path: Path, exact: bool) -> None:
    publisher = WeightPublisher(tmp_path, UpdateOptions(exact=exact), anchor_every=4)
    steady, late = WeightReceiver(tmp_path), WeightReceiver(tmp_path)
    for version in range(1, 12):
        published = publisher.publish(model(version))
        assert (published.version, published.anchor_bytes > 0) == (version, version % 4 == 0 or version == 1)
        assert steady.pull()
        assert not steady.pull()
        if exact:
            assert_equal(dict(steady.model), model(version))
        if version % 5 == 0:
            late.pull()
            assert_equal(dict(late.model), dict(steady.model))
    fresh = WeightReceiver(tmp_path)
    fresh.pull()
    assert_equal(dict(fresh.model), dict(steady.model))


def test_a_receiver_can_ask_for_a_version_between(tmp_path: Path) -> None:
    publisher = WeightPublisher(tmp_path)
    for version in range(1, 5):
        publisher.publish(model(version))
    receiver = WeightReceiver(tmp_path)
    receiver.pull(3)
    assert_equal(dict(receiver.model), model(3))
    with pytest.raises(ValueError, match="older"):
        receiver.pull(2)
    with pytest.raises(nnc_core.MissingLinkError, match="not published"):
        receiver.pull(9)


def test_the_last_two_anchors_stay_with_what_follows(tmp_path: Path) -> None:
    publisher = WeightPublisher(tmp_path, anchor_every=2)
    for version in range(1, 8):
        publisher.publish(model(version))
    names = sorted(each.name for each in tmp_path.iterdir())
    assert [n for n in names if n.startswith("anchor")] == ["anchor_000004.nnr", "anchor_000006.nnr"]
    assert [n for n in names if n.startswith("update")] == [f"update_{n:06d}.nnr" for n in (4, 5, 6, 7)]


def test_a_publisher_that_starts_again_goes_on_with_an_anchor(tmp_path: Path) -> None:
    receiver = WeightReceiver(tmp_path)
    WeightPublisher(tmp_path).publish(model(1))
    receiver.pull()
    again = WeightPublisher(tmp_path).publish(model(2))
    assert (again.version, again.update_bytes) == (2, 0)
    receiver.pull()
    assert_equal(dict(receiver.model), model(2))


class _Failing(weight_sync.Folder):
    """A folder that takes so many files, and no more."""

    def __init__(self, path: Path, files: int) -> None:
        super().__init__(path)
        self.files = files

    def write(self, name: str, data: bytes) -> None:
        if self.files == 0:
            raise OSError(28, "no space left on device")
        self.files -= 1
        super().write(name, data)


@pytest.mark.parametrize("files", range(3))
def test_what_could_not_be_written_is_not_announced_and_is_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    publisher = WeightPublisher(tmp_path, anchor_every=2)
    publisher.publish(model(1))
    receiver = WeightReceiver(tmp_path)
    receiver.pull()
    monkeypatch.setattr(publisher, "_store", _Failing(tmp_path, files))
    with pytest.raises(OSError, match="no space"):
        publisher.publish(model(2))
    assert not receiver.pull()
    monkeypatch.setattr(publisher, "_store", weight_sync.Folder(tmp_path))
    assert publisher.publish(model(3)).version == 2
    receiver.pull()
    assert_equal(dict(receiver.model), model(3))


def test_a_damaged_update_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    publisher, receiver = WeightPublisher(tmp_path), WeightReceiver(tmp_path)
    publisher.publish(model(1))
    receiver.pull()
    publisher.publish(model(2))
    update = tmp_path / "update_000002.nnr"
    data = bytearray(update.read_bytes())
    data[-3] ^= 1
    update.write_bytes(data)
    with pytest.raises(nnc_core.NncError):
        receiver.pull()
    assert receiver.version == 1
    assert_equal(dict(receiver.model), model(1))


def test_a_head_that_is_not_one_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", json.dumps({"nnc_head": 9, "version": 1, "digest": ""})):
        (tmp_path / "head.json").write_text(text)
        with pytest.raises(nnc_core.ModelError, match=r"head\.json"):
            WeightReceiver(tmp_path).pull()


def test_any_place_that_fsspec_reaches_will_do() -> None:
    pytest.importorskip("fsspec")
    place = "memory://nnc-weight-sync"
    publisher, receiver = WeightPublisher(place, anchor_every=2), WeightReceiver(place)
    for version in range(1, 6):
        publisher.publish(model(version))
        receiver.pull()
        assert_equal(dict(receiver.model), model(version))


def test_the_files_that_are_published_are_bitstreams_for_the_command_line(tmp_path: Path) -> None:
    publisher = WeightPublisher(tmp_path / "weights")
    versions = [{name: array for name, array in model(number).items() if array.size} for number in range(1, 4)]
    for version in versions:
        publisher.publish(version)
    names = [tmp_path / "weights" / name for name in ("anchor_000001.nnr", "update_000002.nnr", "update_000003.nnr")]
    updates.patch(names[0], names[1:], tmp_path / "model.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert_equal({name: found[name] for name in versions[-1]}, versions[-1])
