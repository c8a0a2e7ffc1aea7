"""Fuzzes every reader guided by the coverage of its Python code: run by ``make fuzz-python``, which brings atheris.

The first two bytes of an input choose a reader, what it starts from and the file that is replaced; the rest is what
stands in that file. The corpus begins with the files themselves. An exception that is not an `NncError` is a finding,
and so is whatever `annex_tests.fuzz.guard` reports.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import atheris

with atheris.instrument_imports(include=["nnc_core", "nnc_adapters"]):
    from annex_tests.fuzz import adapters
    from annex_tests.fuzz.reading import Files, Reader, exercise
    from conformance.fuzz import codec, seeds
    from nnc_core import NncError, NnrFile

_LONGEST = 4096
"""Bytes of an input; what matters is found in short ones."""


class Place(NamedTuple):
    """What an input stands for: one file of a model, or a bitstream; ``seeds`` are sound ones."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]


def places(chosen: Iterable[Reader]) -> list[Place]:
    """Bitstreams, and every file of every reader."""
    bitstreams = tuple(seed.data for seed in seeds.seeds())
    return [Place(bitstreams, _decode), *(place for reader in chosen for place in _files(reader))]


def _decode(data: bytes) -> None:
    """What all ways to a bitstream have in common; `conformance.fuzz.codec` goes the others, too."""
    with suppress(NncError):
        file = NnrFile(data, codec.LIMITS)
        codec.walk(data)
        for name in file:
            with suppress(NncError):
                file.decode(name)


def _files(reader: Reader) -> Iterator[Place]:
    for files in reader.seeds.values():
        yield from (Place((data,), partial(_read, reader, files, name)) for name, data in files.items())


def _read(reader: Reader, files: Files, name: str, data: bytes) -> None:
    exercise(reader, {**files, name: data})


def start(found: Iterable[Place], corpus: Path) -> None:
    """Make a corpus of what the readers start from, where there is none."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    for number, place in enumerate(found):
        for data in place.seeds:
            if len(data) <= _LONGEST:
                whole = number.to_bytes(2, "big") + data
                (corpus / hashlib.sha1(whole, usedforsecurity=False).hexdigest()).write_bytes(whole)


def run(found: list[Place], data: bytes) -> None:
    """Read one input."""
    if len(data) >= 2:
        found[int.from_bytes(data[:2], "big") % len(found)].read(data[2:])


def main(arguments: list[str]) -> None:
    """The command: the folder of the corpus, then options of libFuzzer."""
    sys.dont_write_bytecode = True
    corpus, *options = arguments[1:]
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        found = places(adapters.readers())
        start(found, Path(corpus))
        atheris.Setup([arguments[0], f"-max_len={_LONGEST + 2}", *options, corpus], partial(run, found))
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
