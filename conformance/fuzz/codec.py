"""Decodes many hostile bitstreams and reports whatever is neither success nor an `NncError`: run by ``make fuzz``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from numpy.typing import NDArray

import nnc_core
from conformance.fuzz import fuzzing, hostile, seeds
from conformance.fuzz.fuzzing import Case
from nnc_core import approximator, coder
from nnc_core.bitstream import Bitstream
from nnc_core.bitstream.validate import violations

LIMITS = nnc_core.Limits(
    tensor_elements=1 << 20, decoded_bytes=1 << 23, units=1 << 10, name_length=1 << 10, topology_bytes=1 << 18
)
"""Tight, but enough for everything that the cases are made from."""


class Cases:
    """`hostile.Cases`, and what is done with them."""

    def __init__(self, seed: int) -> None:
        self._hostile = hostile.Cases(seed)
        self.cuts = self._hostile.cuts

    def __getitem__(self, number: int) -> Case:
        what, data = self._hostile[number]
        run = partial(exercise, data, threads=2 if number % 100 == 0 else 1)
        return Case("codec", what, {"case.nnr": data}, run)


def exercise(data: bytes, *, threads: int = 1) -> str:
    """Use all of the reading side on one bitstream; return ``decoded`` or the class of the first error on purpose."""
    ending = "decoded"
    try:
        check_size(nnc_core.decode(data, limits=LIMITS, threads=threads))
    except nnc_core.NncError as error:
        ending = check_error(error)
    for look in (walk, validate, decode_each, decode_file, update, dictionaries):
        with _refusing():
            look(data)
    return ending


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except nnc_core.NncError as error:
        check_error(error)


def walk(data: bytes) -> None:
    """Look at all headers and the topology, as ``nnc inspect`` does."""
    bitstream = Bitstream(data, LIMITS)
    for unit in bitstream.units:
        bitstream.trace(unit)
    _ = bitstream.topology
    _ = bitstream.pruning


def validate(data: bytes) -> None:
    """What a reader raises is the first that a reader finds who goes on; a validator looks into everything."""
    refused: list[str] = []
    try:
        Bitstream(data, LIMITS)
    except nnc_core.BitstreamError as error:
        refused.append(str(error))
    found: list[nnc_core.BitstreamError] = []
    Bitstream(data, LIMITS, sink=found.append)
    if list(map(str, found[:1])) != refused:
        raise ValueError(f"refused by {refused}, but the first violation is {found[:1]}")
    for violation in violations(data, LIMITS):
        check_error(violation)


def decode_each(data: bytes) -> None:
    """Decode every tensor, no matter how the others fare."""
    file = nnc_core.NnrFile(data, LIMITS)
    for name in file:
        with _refusing():
            check_size({name: file[name]})
    _ = file.tensors


def decode_file(data: bytes) -> None:
    """Map a file with the data, and decode the first tensor in it."""
    with tempfile.NamedTemporaryFile() as stored:
        stored.write(data)
        stored.flush()
        with nnc_core.open(stored.name, limits=LIMITS) as file:
            for name in file:
                file.decode(name)


def update(data: bytes) -> None:
    """Decode as an update of a tensor that has a history, and see what it leaves for the next."""
    file = nnc_core.NnrFile(data, LIMITS, history={"w": seeds.HISTORY})
    check_size(dict(file.decode_all(1)))
    file.history_after()


def dictionaries(data: bytes) -> None:
    """Decode into the dictionaries of Part 18, and put what came out back together."""
    info = nnc_core.ModelInfo()
    decoded = coder.decode(data, info, limits=LIMITS, threads=1)
    check_size(decoded["parameters"])
    approximator.recompose(info, approximator.apply_lsa(info, approximator.rec(decoded, info)))


def check_error(error: nnc_core.NncError) -> str:
    """An error shall be able to tell what it is about; return its class."""
    if isinstance(error, nnc_core.BitstreamError):
        error.explain()
        if error.bit_offset is not None and error.bit_offset < 0:
            raise ValueError(f"an error before the start of its unit: {error}")
    return f"{type(error).__name__}{'' if str(error) else ' without a message'}"


def check_size(tensors: dict[str, NDArray[Any]]) -> None:
    """Limits are to hold for what comes out, whatever the headers say."""
    if sum(array.nbytes for array in tensors.values()) > LIMITS.decoded_bytes:
        raise ValueError("more came out than decoded_bytes allows")
    if any(array.size > LIMITS.tensor_elements for array in tensors.values()):
        raise ValueError("more came out than tensor_elements allows")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = fuzzing.parser(__doc__, damaged=20_000).parse_args(arguments)
    return fuzzing.command(Cases(options.seed), options)


if __name__ == "__main__":
    sys.exit(main())
