"""ISO base media files, built and taken apart here by other means than those of the adapter."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nnc_adapters import containers
from nnc_adapters.containers import CONTAINERS
from nnc_adapters.containers.isobmff import Isobmff
from nnc_adapters.containers.isobmff.boxes import Cursor, box_header
from nnc_adapters.containers.isobmff.meta import Extent, Location, encode_iloc
from nnc_core.bitstream.parts import MODEL, split
from nnc_core.errors import ModelError, UnsupportedError

SHORTEST = bytes.fromhex("00040201")
GOLDEN = bytes.fromhex(
    "00000014 66747970 69736f36 00000000 69736f36"  # ftyp iso6
    "0000000c 6d646174 00040201"  # mdat
    "00000087 6d657461 00000000"  # meta
    "00000021 68646c72 00000000 00000000 6e6e6574 00000000 00000000 00000000 00"  # hdlr nnet
    "0000000e 7069746d 00000000 0001"  # pitm
    "0000002c 69696e66 00000000 0001"  # iinf
    "0000001e 696e6665 02000000 0001 0000 6e6e7231 5f5f6d6f64656c5f5f00"  # infe nnr1 __model__
    "00000020 696c6f63 01000000 4400 0001 0001 0000 0000 0001 0000001c 00000004"  # iloc
)
NNRC = bytes(range(200, 230))


def b(kind: str, *content: bytes) -> bytes:
    """A box."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind.encode() + data


def n(*numbers: int) -> bytes:
    """Numbers of 16 bits."""
    return struct.pack(f">{len(numbers)}H", *numbers)


FTYP = b("ftyp", b"isom", bytes(4), b"isommp42")
ZERO = bytes(4)


def infe(number: int, name: bytes = b"", kind: bytes = b"nnr1") -> bytes:
    return b("infe", b"\2\0\0\0", n(number, 0), kind, name, b"\0")


def iinf(*entries: bytes) -> bytes:
    return b("iinf", ZERO, n(len(entries)), *entries)


def iloc(*entries: tuple[int, int, int, int]) -> bytes:
    """Entries of item, method, offset and length."""
    places = [n(item, method, 0, 1) + struct.pack(">II", start, size) for item, method, start, size in entries]
    return b("iloc", b"\1\0\0\0", b"\x44\0", n(len(entries)), *places)


def hdlr(kind: bytes = b"nnet") -> bytes:
    return b("hdlr", ZERO, ZERO, kind, bytes(12), b"name\0")


def iprp(*associations: tuple[int, int]) -> bytes:
    """Two properties, and entries of item and property index."""
    ipma = b("ipma", ZERO, struct.pack(">I", len(associations)), *(n(i) + bytes([1, p]) for i, p in associations))
    return b("iprp", b("ipco", b("free", b"1"), b("nnrC", NNRC)), ipma)


def meta(*content: bytes) -> bytes:
    return b("meta", ZERO, *content)


def walk(data: bytes, *path: str) -> list[bytes]:
    """The contents of all boxes at a path, by a loop that trusts the sizes."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if data[at + 4 : at + 8].decode() == path[0]:
            content = data[at + 8 : at + size]
            content = content[4:] if path[0] == "meta" else content
            found += walk(content, *path[1:]) if len(path) > 1 else [content]
        at += size
    return found


def located(data: bytes) -> dict[int, bytes]:
    """The bytes of every item in the form that the adapter writes."""
    (table,) = walk(data, "meta", "iloc")
    assert table[:6] == b"\1\0\0\0\x44\0"
    idat = (walk(data, "meta", "idat") or [b""])[0]
    found, at = {}, 8
    for _ in range(int.from_bytes(table[6:8], "big")):
        item, method, _, extents, start, size = struct.unpack(">HHHHII", table[at : at + 16])
        assert extents == 1
        found[item] = (idat if method else data)[start : start + size]
        at += 16
    assert at == len(table)
    return found


def associations(data: bytes) -> dict[int, int]:
    (table,) = walk(data, "meta", "iprp", "ipma")
    return {struct.unpack_from(">H", table, at)[0]: table[at + 3] for at in range(8, len(table), 4)}


def read(path: Path) -> dict[str, bytes]:
    with Isobmff().open(path) as items:
        return {key: bytes(items[key]) for key in items}


def file(tmp_path: Path, *content: bytes) -> Path:
    path = tmp_path / "existing.mp4"
    path.write_bytes(b"".join(content))
    return path


def test_a_file_is_written_as_it_always_was(tmp_path: Path) -> None:
    Isobmff().write(tmp_path / "x", {MODEL: SHORTEST})
    assert (tmp_path / "x").read_bytes() == GOLDEN


def test_the_golden_file_is_read(tmp_path: Path) -> None:
    assert read(file(tmp_path, GOLDEN)) == {MODEL: SHORTEST}


def test_an_independent_walk_finds_every_tensor(bitstream: Path, coded: bytes) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x.mp4"), per_tensor=True)
    data = target.read_bytes()
    parts = split(coded)
    assert walk(data, "meta", "hdlr")[0][8:12] == b"nnet"
    entries = walk(walk(data, "meta", "iinf")[0][6:], "infe")
    names = {int.from_bytes(entry[4:6], "big"): entry[12:-1].decode() for entry in entries}
    assert all(entry[8:12] == b"nnr1" for entry in entries)
    assert list(names.values()) == list(parts)
    assert {names[item]: found for item, found in located(data).items()} == dict(parts)
    assert names[int.from_bytes(walk(data, "meta", "pitm")[0][4:], "big")] == MODEL


def test_no_property_is_invented(bitstream: Path) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x.mp4"), per_tensor=True)
    assert not walk(target.read_bytes(), "meta", "iprp")
    assert b"nnrC" not in target.read_bytes()


def test_without_a_model_no_item_is_primary(tmp_path: Path) -> None:
    Isobmff().write(tmp_path / "x", {"a": SHORTEST, "b": SHORTEST})
    assert not walk((tmp_path / "x").read_bytes(), "meta", "pitm")


def test_files_of_other_writers_are_read(tmp_path: Path) -> None:
    """Version 0 places with base offsets, two extents, items in idat, boxes with 64-bit sizes, no names."""
    start = FTYP + struct.pack(">I4sQ", 1, b"mdat", 16 + 8) + b"\0\4ab\2\1cd"
    at = len(FTYP) + 16
    places = b("iloc", ZERO, b"\x44\x40", n(1, 1, 0), struct.pack(">IH4I", at, 2, 0, 2, 4, 2))
    path = file(tmp_path, start, meta(hdlr(), iinf(infe(1)), places))
    assert read(path) == {MODEL: SHORTEST}
    path = file(tmp_path, FTYP, meta(iloc((7, 1, 1, 4)), b("idat", b"x" + SHORTEST), iinf(infe(7, b"w"))))
    assert read(path) == {"w": SHORTEST}


def test_wide_numbers_are_read(tmp_path: Path) -> None:
    entry = b("infe", b"\3\0\0\0", struct.pack(">IH4s", 1 << 20, 0, b"nnr1"), b"w\0")
    table = b("iinf", b"\1\0\0\0", struct.pack(">I", 1), entry)
    place = struct.pack(">IHHQHQQQ", 1 << 20, 0, 0, 0, 1, 9, len(FTYP) + 8, 4)
    places = b("iloc", b"\2\0\0\0", b"\x88\x88", struct.pack(">I", 1), place)
    primary = b("pitm", b"\1\0\0\0", struct.pack(">I", 1 << 20))
    assert read(file(tmp_path, FTYP, b("mdat", SHORTEST), meta(table, places, primary))) == {"w": SHORTEST}


def test_items_without_names_go_by_number_or_as_the_model(tmp_path: Path) -> None:
    entries = iinf(infe(1), infe(2), infe(3, b"x", b"Exif"))
    places = iloc((1, 1, 0, 4), (2, 1, 0, 4), (3, 1, 0, 4))
    path = file(tmp_path, FTYP, meta(entries, places, b("idat", SHORTEST), b("pitm", ZERO, n(2))))
    assert list(read(path)) == ["item 1", MODEL]


def test_other_items_do_not_make_a_container(tmp_path: Path) -> None:
    path = file(tmp_path, FTYP, meta(iinf(infe(1, b"x", b"Exif")), iloc((1, 1, 0, 4)), b("idat", SHORTEST)))
    assert not any(c.sniff(path) for c in CONTAINERS)
    with pytest.raises(ModelError, match="carries no NNR"):
        Isobmff().open(path)


def test_a_film_stays_as_it_is(tmp_path: Path, bitstream: Path, coded: bytes) -> None:
    film = FTYP + b("moov", b"tracks") + b("mdat", b"frames")
    base = file(tmp_path, film)
    for per_tensor in (False, True):
        target = tmp_path / f"{per_tensor}.mp4"
        containers.embed(bitstream, target, into=base, per_tensor=per_tensor)
        assert target.read_bytes().startswith(film)
        containers.extract(target, out := tmp_path / "out.nnr", force=True)
        assert out.read_bytes() == coded
    assert base.read_bytes() == film


def test_a_last_box_without_size_gets_one(tmp_path: Path) -> None:
    base = file(tmp_path, FTYP, bytes(4), b"mdat", b"frames")
    Isobmff().write_into(base, tmp_path / "x", {"w": SHORTEST})
    assert (tmp_path / "x").read_bytes().startswith(FTYP + b("mdat", b"frames"))
    assert read(tmp_path / "x") == {"w": SHORTEST}


def existing(tmp_path: Path, *extra: bytes) -> tuple[Path, bytes]:
    """A file with an image's metadata, two NNR items with properties, and things behind the box ``meta``."""
    before = FTYP + b("mdat", b"pixels", SHORTEST)
    at = len(FTYP) + 8
    entries = iinf(infe(5, b"Exif", b"Exif"), infe(6, b"a"), infe(7, b"b"), infe(9, b"image", b"hvc1"))
    places = iloc((5, 1, 2, 4), (6, 0, at + 6, 4), (7, 1, 6, 4), (9, 0, at, 6))
    old = meta(hdlr(b"pict"), b("pitm", ZERO, n(9)), entries, places, iprp((6, 2), (7, 2), (9, 1)), *extra)
    old = meta(old[12:], b("idat", b"..exif", SHORTEST))
    after = b("moov", b"tracks")
    return file(tmp_path, before, old, after), before + old[:4] + b"free" + old[8:] + after


def test_everything_else_in_a_file_is_kept(tmp_path: Path) -> None:
    base, unmoved = existing(tmp_path)
    Isobmff().write_into(base, tmp_path / "x", {"b": b"new b", "c": b"new c"})
    data = (tmp_path / "x").read_bytes()
    assert data.startswith(unmoved)
    assert located(data) == {5: b"exif", 9: b"pixels", 7: b"new b", 10: b"new c"}
    assert walk(data, "meta", "hdlr") == [hdlr(b"pict")[8:]]
    assert walk(data, "meta", "pitm") == [ZERO + n(9)]
    assert read(tmp_path / "x") == {"b": b"new b", "c": b"new c"}


def test_a_configuration_stays_with_its_item_byte_for_byte(tmp_path: Path) -> None:
    base, _ = existing(tmp_path)
    Isobmff().write_into(base, tmp_path / "x", {"b": b"new b", "c": b"new c"})
    data = (tmp_path / "x").read_bytes()
    assert walk(data, "meta", "iprp", "ipco", "nnrC") == [NNRC]
    assert associations(data) == {7: 2, 9: 1}  # and no longer of item 6, which is gone


def test_an_only_item_takes_the_place_of_the_only_one_before(tmp_path: Path, bitstream: Path, coded: bytes) -> None:
    content = iinf(infe(3, b"net")), iloc((3, 1, 0, 4)), iprp((3, 2)), b("idat", SHORTEST)
    base = file(tmp_path, FTYP, meta(hdlr(), *content))
    containers.embed(bitstream, tmp_path / "x.mp4", into=base)
    data = (tmp_path / "x.mp4").read_bytes()
    assert associations(data) == {3: 2}
    assert located(data) == {3: coded}
    assert read(tmp_path / "x.mp4") == {"net": coded}


def test_a_file_can_replace_itself(tmp_path: Path) -> None:
    base, unmoved = existing(tmp_path)
    Isobmff().write_into(base, base, {"a": b"1", "b": b"2"}, force=True)
    assert base.read_bytes().startswith(unmoved)
    assert read(base) == {"a": b"1", "b": b"2"}


def test_references_to_items_that_would_vanish_are_not_broken(tmp_path: Path) -> None:
    base, _ = existing(tmp_path, b("iref", ZERO))
    with pytest.raises(UnsupportedError, match="references"):
        Isobmff().write_into(base, tmp_path / "x", {"a": SHORTEST})
    assert not (tmp_path / "x").exists()
    Isobmff().write_into(base, tmp_path / "x", {"a": SHORTEST, "b": SHORTEST})
    assert walk((tmp_path / "x").read_bytes(), "meta", "iref") == [ZERO]


def test_only_what_can_be_extended_is_extended(bitstream: Path) -> None:
    containers.embed(bitstream, base := bitstream.with_name("base.zip"))
    with pytest.raises(UnsupportedError, match="existing file"):
        containers.embed(bitstream, bitstream.with_name("x.zip"), into=base)


def test_a_base_that_is_no_such_file_is_refused(bitstream: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="coded"):
        containers.embed(bitstream, tmp_path / "x.mp4", into=bitstream)
    assert not (tmp_path / "x.mp4").exists()


def test_more_items_than_16_bits_can_count(tmp_path: Path) -> None:
    items = {str(number): SHORTEST for number in range((1 << 16) + 3)}
    Isobmff().write(tmp_path / "x", items)
    assert read(tmp_path / "x") == items


def test_sizes_and_places_beyond_4_gib_are_written_in_64_bits() -> None:
    assert box_header(b"mdat", (1 << 32) - 9) == b"\xff\xff\xff\xffmdat"
    assert box_header(b"mdat", (1 << 32) - 8) == b"\0\0\0\1mdat" + struct.pack(">Q", (1 << 32) + 8)
    table = encode_iloc({1: Location(0, 0, (Extent(0, 1 << 32, 5),))})
    cursor = Cursor(table[8:], "iloc")
    assert (cursor.u(4), cursor.u(2), cursor.u(2), cursor.u(2)) == (1 << 24, 0x8800, 1, 1)
    assert (cursor.u(4), cursor.u(2), cursor.u(8), cursor.u(8), cursor.done) == (0, 1, 1 << 32, 5, True)
