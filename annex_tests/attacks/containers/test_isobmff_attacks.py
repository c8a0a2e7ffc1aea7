"""Hostile ISO base media files: refused with an error that says why, whatever they claim."""

from __future__ import annotations

import random
import struct

import pytest

from annex_tests.support.hostile_containers import CONTAINER, NNR, SIZE, mutated, read_all
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits


def b(kind, *content):
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


FTYP = b(b"ftyp", b"isom", bytes(8))
INFE = b(b"infe", b"\2\0\0\0\0\1\0\0nnr1a\0")
IINF = b(b"iinf", bytes(4), b"\0\1", INFE)
PLACE = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(NNR))
IDAT = b(b"idat", NNR)


def iloc(*entries, version=1, widths=b"\x44\0", count=None):
    number = len(entries) if count is None else count
    return b(b"iloc", bytes([version, 0, 0, 0]), widths, number.to_bytes(4 if version == 2 else 2, "big"), *entries)


def mp4(*boxes):
    return FTYP + b(b"meta", bytes(4), *boxes)


def place(item=1, method=1, reference=0, start=0, size=SIZE):
    return struct.pack(">HHHHII", item, method, reference, 1, start, size)


def test_an_honest_item_is_read(tmp_path):
    (tmp_path / "x").write_bytes(mp4(IINF, iloc(PLACE), IDAT))
    assert read_all("isobmff", tmp_path / "x") == {"a": NNR}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty"),
        (b"\0" * 8, "'ftyp'|ftyp"),
        (b"RIFF" * 10, "box"),
        (FTYP + b"\0\0\0", "not a box"),
        (FTYP + b"\0\0\0\4meta", "of 4 bytes"),
        (FTYP + b"\0\0\0\1meta", "of 1 bytes"),
        (FTYP + b"\0\0\0\1meta" + bytes(8), "of 0 bytes"),
        (FTYP + b"\0\0\0\1meta" + b"\xff" * 8, "where 16 are left"),
        (FTYP + b"\xff\xff\xff\xffmeta", "where 8 are left"),
        (FTYP, "carries no NNR"),
        (mp4(), "carries no NNR"),
        (mp4(IINF), "no place"),
        (mp4(iloc(PLACE)), "carries no NNR"),
        (FTYP + b(b"meta"), "version"),
        (FTYP + b(b"meta", b"\1\0\0\0"), "version"),
        (mp4() + mp4()[len(FTYP) :], "'meta' occurs twice"),
        (mp4(IINF, IINF, iloc(PLACE), IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), iloc(PLACE), IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), IDAT, IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), IDAT, b"\0\0\0\0free"), "of 0 bytes"),
        (mp4(b(b"iinf", bytes(4), b"\0\2", INFE)), "1 entries, expected 2"),
        (mp4(b(b"iinf", b"\1\0\0\0", b"\xff\xff\xff\xff", INFE)), "expected 4294967295"),
        (mp4(b(b"iinf", bytes(4), b"\0\2", INFE, INFE)), "twice"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", INFE[:-1])), "left"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\0nnr1a"))), "no end"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\0nnr1\xff\0"))), "UTF-8"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0"))), "too short"),
        (mp4(IINF, iloc(PLACE, PLACE), IDAT), "twice"),
        (mp4(IINF, iloc(PLACE, count=2), IDAT), "too short"),
        (mp4(IINF, iloc(PLACE, count=0), IDAT), "bytes follow"),
        (mp4(IINF, iloc(PLACE, version=3), IDAT), "version 3"),
        (mp4(IINF, iloc(PLACE, widths=b"\x54\0"), IDAT), "numbers of"),
        (mp4(IINF, iloc(PLACE[:6] + b"\xff\xff"), IDAT), "too short"),
        (mp4(IINF, iloc(PLACE[:6] + b"\0\0"), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(size=0)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(size=len(NNR) + 1)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(start=0xFFFFFFFF)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(method=0, start=1000)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place())), "not in the file"),
        (mp4(IINF, iloc(PLACE), IDAT, b(b"pitm")), "too short"),
    ],
)
def test_boxes_that_lie_are_refused(refused, data, match):
    refused("isobmff", data, match)


@pytest.mark.parametrize(
    "data",
    [
        mp4(IINF, iloc(place(method=2)), IDAT),
        mp4(IINF, iloc(place(method=15)), IDAT),
        mp4(IINF, iloc(place(reference=1)), IDAT),
        mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\1nnr1a\0")), iloc(PLACE), IDAT),
        mp4(IINF, iloc(struct.pack(">HHHH", 1, 1, 0, 0xFFFF), widths=b"\0\0"), IDAT),
    ],
)
def test_items_that_are_elsewhere_are_not_followed(refused, data):
    refused("isobmff", data, "not supported", UnsupportedError)


def test_overlapping_extents_do_not_multiply_the_file(refused):
    large = b(b"idat", bytes(100_000))
    for count in (2, 0xFFFF):
        extents = struct.pack(">II", 0, 90_000) * count
        refused("isobmff", mp4(IINF, iloc(PLACE[:6] + count.to_bytes(2, "big") + extents), large), "not in the file")


def test_boxes_inside_boxes_are_not_recursion(tmp_path, refused):
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", 8 + len(nested)) + b"meta" + nested
    refused("isobmff", FTYP + nested, "version")
    refused("isobmff", mp4(nested), "carries no NNR")


def test_many_small_boxes_are_limited(tmp_path):
    (tmp_path / "x").write_bytes(FTYP + b(b"free") * 200)
    with pytest.raises(LimitError, match="boxes"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    (tmp_path / "x").write_bytes(mp4(*[b(b"free")] * 200))
    with pytest.raises(LimitError, match="boxes in 'meta'"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    (tmp_path / "x").write_bytes(mp4(b(b"iinf", bytes(4), b"\0\xc8", INFE * 200)))
    with pytest.raises(LimitError, match="iinf"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    with pytest.raises(LimitError, match="meta"):
        read_all("isobmff", tmp_path / "x", Limits(topology_bytes=100))


@pytest.mark.parametrize("properties", [b(b"ipma"), b(b"ipma", bytes(4), b"\xff\xff\xff\xff"), b"\0\0\0\1"])
def test_damaged_properties_are_not_extended(tmp_path, properties):
    (tmp_path / "x").write_bytes(mp4(IINF, iloc(PLACE), b(b"iprp", properties), IDAT))
    with pytest.raises(ModelError):
        CONTAINER["isobmff"].write_into(tmp_path / "x", tmp_path / "y", {"a": NNR, "b": NNR})  # type: ignore[attr-defined]
    assert not (tmp_path / "y").exists()


# HDF5


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_not_extended_with_other_errors(tmp_path, seed):
    rng = random.Random(seed)
    whole = mp4(IINF, iloc(PLACE), b(b"iprp", b(b"ipco"), b(b"ipma", bytes(4), b"\0\0\0\1\0\1\1\1")), IDAT)
    for _ in range(50):
        (tmp_path / "x").write_bytes(mutated(whole, rng))
        (tmp_path / "y").unlink(missing_ok=True)
        try:
            CONTAINER["isobmff"].write_into(tmp_path / "x", tmp_path / "y", {"b": NNR, "c": NNR})  # type: ignore[attr-defined]
            found = read_all("isobmff", tmp_path / "y")
        except NncError:
            assert not (tmp_path / "y").exists()
        else:
            assert found == {"b": NNR, "c": NNR}
