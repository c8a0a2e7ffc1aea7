"""Gives many hostile files to the adapters, and reports whatever is neither success nor an `NncError`.

Run by ``make fuzz``, with the folder ``conformance`` in PYTHONPATH. A finding is also what is written or opened outside
the folder of the model, what is left behind there, and any program that is started.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random

from annex_tests.fuzz import containers as fuzz_containers
from annex_tests.fuzz import convert as fuzz_convert
from annex_tests.fuzz import nnef as fuzz_nnef
from annex_tests.fuzz import onnx as fuzz_onnx
from annex_tests.fuzz import pytorch as fuzz_pytorch
from annex_tests.fuzz import tensorflow as fuzz_tensorflow
from annex_tests.fuzz.reading import Files, Reader, exercise
from conformance.fuzz import fuzzing
from conformance.fuzz.fuzzing import Case
from nnc_adapters import registry

_MODULES = (fuzz_containers, fuzz_convert, fuzz_nnef, fuzz_onnx, fuzz_pytorch, fuzz_tensorflow)
_LONGEST_CUT = 2000
"""Files up to this size are cut at every byte, others at as many places."""
_CUTS_OF_SLOW = 40


def readers() -> list[Reader]:
    """All there are."""
    registry.adapters()  # which packages are installed is read now, before folders are guarded
    return [reader for module in _MODULES for reader in module.readers()]


class Cases:
    """The hostile files of one run: number ``n`` is the same whenever ``seed`` and ``chosen`` are.

    The first ``cuts`` are files to start from, cut short.
    """

    def __init__(self, seed: int, chosen: Sequence[Reader]) -> None:
        self._seed, self._readers = seed, chosen
        self._weights = [1 if reader.slow else 3 for reader in chosen]
        self._cuts = [(r, name, file, size) for r in chosen for name in r.seeds for file, size in _cuts(r, name)]
        Random(seed).shuffle(self._cuts)
        self.cuts = len(self._cuts)

    def __getitem__(self, number: int) -> Case:
        if number < self.cuts:
            reader, name, file, size = self._cuts[number]
            files = {**reader.seeds[name], file: reader.seeds[name][file][:size]}
            return _case(reader, f"{name}: {file} cut to {size} bytes", files)
        source = Random(f"{self._seed} {number - self.cuts}")
        (reader,) = source.choices(self._readers, self._weights)
        name = source.choice(list(reader.seeds))
        files = dict(reader.seeds[name])
        done = [_damage(source, reader, files) for _ in range(source.choice((1, 1, 1, 2, 4)))]
        return _case(reader, f"{name}: {', '.join(done)}", files)


def _cuts(reader: Reader, name: str) -> Iterable[tuple[str, int]]:
    for file, data in reader.seeds[name].items():
        step = max(1, len(data) // (_CUTS_OF_SLOW if reader.slow else _LONGEST_CUT))
        yield from ((file, size) for size in range(0, len(data), step))


def _case(reader: Reader, what: str, files: Files) -> Case:
    return Case(reader.name, what, files, partial(exercise, reader, files))


def _damage(source: Random, reader: Reader, files: dict[str, bytes]) -> str:
    """Damage some of ``files``; says how."""
    name = source.choice(list(files))
    chance = source.random()
    if chance < 0.03 and len(files) > 1:
        del files[name]
        return f"{name} removed"
    if chance < 0.06:
        other = source.choice(list(files))
        files[name], files[other] = files[other], files[name]
        return f"{name} exchanged with {other}"
    if chance < 0.09:
        other = source.choice(list(reader.seeds.values()))  # type: ignore[assignment]
        data = other.get(name) or source.choice(list(other.values()))  # type: ignore[attr-defined]
        files[name] = files[name][: source.randrange(len(files[name]) + 1)] + data[source.randrange(len(data) + 1) :]
        return f"{name} spliced"
    if chance < 0.15 and reader.names:
        files[new := source.choice(reader.names)] = files.pop(name)
        return f"{name} renamed to {new[:20]!r}"
    damage = source.choice(reader.damages)
    files[name] = damage(source, files[name])
    return f"{name} {damage.__name__}"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = fuzzing.parser(__doc__, damaged=30_000)
    parser.add_argument("--only", default="", metavar="NAME", help="readers whose names begin so")
    options = parser.parse_args(arguments)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        chosen = [reader for reader in readers() if reader.name.startswith(options.only)]
        check(chosen)
        return fuzzing.command(Cases(options.seed, chosen), options)


def check(chosen: Iterable[Reader]) -> None:
    """ValueError unless every reader reads what the cases are made from; brings all modules into memory as well."""
    for reader in chosen:
        for name, files in reader.seeds.items():
            if (ending := exercise(reader, files)) != "read":
                raise ValueError(f"{reader.name} does not read {name}: {ending}")


if __name__ == "__main__":
    sys.exit(main())
