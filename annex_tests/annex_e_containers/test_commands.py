"""``nnc embed``, ``nnc extract`` and ``nnc formats``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from annex_tests.support.program import Nnc
from nnc_adapters.containers import CONTAINERS, registry
from nnc_core.bitstream.parts import split
from nnc_core.limits import Limits


def test_embed_and_extract_report_to_people(nnc: Nnc, bitstream: Path, coded: bytes) -> None:
    target = bitstream.with_name("x.safetensors")
    result = nnc("embed", bitstream, "-o", target, "--per-tensor")
    assert result.exit_code == 0
    assert f"{len(split(coded))} bitstreams" in result.stderr
    assert "safetensors" in result.stderr
    result = nnc("extract", target, "-o", bitstream.with_name("out.nnr"))
    assert f"{len(coded)} bytes" in result.stderr
    assert bitstream.with_name("out.nnr").read_bytes() == coded


def test_embed_and_extract_report_in_json(nnc: Nnc, bitstream: Path, coded: bytes) -> None:
    target = bitstream.with_name("x.mp4")
    report = json.loads(nnc("embed", bitstream, "-o", target, "--json").stdout)
    assert report == {"target": str(target), "format": "isobmff", "bitstreams": 1, "bytes": len(coded), "way": None}
    result = nnc("extract", target, "-o", bitstream.with_name("out.nnr"), "--tensor", "conv", "--json")
    assert json.loads(result.stdout)["bytes"] == len(split(coded)["conv"])


def test_a_container_can_be_named(nnc: Nnc, bitstream: Path) -> None:
    target = bitstream.with_name("x.bin")
    assert nnc("embed", bitstream, "-o", target).exit_code == 5
    assert nnc("embed", bitstream, "-o", target, "--container", "zip").exit_code == 0
    assert target.read_bytes().startswith(b"PK")


def test_existing_files_need_force(nnc: Nnc, bitstream: Path) -> None:
    target = bitstream.with_name("x.zip")
    target.write_bytes(b"mine")
    assert nnc("embed", bitstream, "-o", target).exit_code == 5
    assert target.read_bytes() == b"mine"
    assert nnc("embed", bitstream, "-o", target, "-f").exit_code == 0
    assert nnc("extract", target, "-o", bitstream).exit_code == 5
    assert nnc("extract", target, "-o", bitstream, "-f").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("embed", "absent.nnr", "-o", "x.zip"), 5),
        (("embed", "coded.nnr"), 2),
        (("embed", "coded.nnr", "-o", "x.h5", "--into", "coded.nnr"), 4),
        (("embed", "coded.nnr", "-o", "x.zip", "--per-tensor", "--limit", "units=3"), 6),
        (("embed", "cut.nnr", "-o", "x.zip", "--per-tensor"), 3),
        (("extract", "coded.nnr", "-o", "x.nnr", "--tensor", "absent"), 5),
        (("extract", "cut.nnr", "-o", "x.nnr"), 3),
    ],
)
def test_errors_have_their_exit_codes_and_leave_nothing(
    nnc: Nnc, bitstream: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(bitstream.parent)
    Path("cut.nnr").write_bytes(bitstream.read_bytes()[:-3])
    assert nnc(*arguments).exit_code == code
    assert {path.name for path in Path().iterdir()} == {"coded.nnr", "cut.nnr"}


def test_formats_lists_models_and_containers(nnc: Nnc) -> None:
    found = {each["name"]: each for each in json.loads(nnc("formats", "--json").stdout)}
    assert found["onnx"]["annex"] == "B"
    assert {c.name for c in CONTAINERS} <= found.keys()
    assert found["isobmff"] == {
        "name": "isobmff",
        "kind": "container",
        "annex": "E",
        "suffixes": [".mp4"],
        "installed": True,
        "install": None,
    }
    assert all(name in nnc("formats").stdout for name in found)


def test_formats_names_the_annex_of_what_carries_nnr(nnc: Nnc) -> None:
    found = json.loads(nnc("formats", "--json").stdout)
    annexes = {each["name"]: each["annex"] for each in found if each["kind"] == "container"}
    assert {name: annex for name, annex in annexes.items() if annex != "E"} == {
        "nnef": "A",
        "savedmodel": "D",
        "savedmodel-emptied": "D",
    }


def test_formats_says_what_to_install(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["nnc_adapters.cli.formats"], "find_spec", lambda name: None)
    found = {each["name"]: each for each in json.loads(nnc("formats", "--json").stdout)}
    assert found["hdf5"]["installed"] is False
    assert found["hdf5"]["install"] == "pip install 'nnc-suite[containers]'"
    assert found["zip"]["installed"] is True


class Envelope:
    """A carrier with a way of its own: it puts a word in front."""

    name = "envelope"
    suffixes = (".letter",)
    packages = ()

    def sniff(self, path: Path) -> bool:
        return path.is_file() and path.read_bytes().startswith(b"Dear")

    def takes(self, path: Path) -> bool:
        return self.sniff(path)

    def embed(self, source: Path, target: Path, *, into: Path | None, force: bool, limits: Limits) -> None:
        greeting = into.read_bytes() if into else b"Dear"
        target.write_bytes(greeting + source.read_bytes())

    def extract(self, source: Path, target: Path, *, force: bool, limits: Limits) -> None:
        target.write_bytes(source.read_bytes()[4:])


def test_carriers_of_other_adapters_take_part(
    nnc: Nnc, bitstream: Path, coded: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "carriers", lambda: (Envelope(), *CONTAINERS))
    letter, archive = tmp_path / "x.letter", tmp_path / "x.zip"
    assert nnc("embed", bitstream, "-o", archive, "--per-tensor").exit_code == 0
    assert nnc("embed", archive, "-o", letter).exit_code == 0
    assert letter.read_bytes() == b"Dear" + coded
    assert nnc("embed", letter, "-o", archive, "-f").exit_code == 0
    assert nnc("extract", letter, "-o", tmp_path / "y.nnr").exit_code == 0
    assert (tmp_path / "y.nnr").read_bytes() == coded
    (tmp_path / "greeting").write_bytes(b"Dear!")
    assert nnc("embed", bitstream, "-o", letter, "-f", "--into", tmp_path / "greeting").exit_code == 0
    assert letter.read_bytes() == b"Dear!" + coded
