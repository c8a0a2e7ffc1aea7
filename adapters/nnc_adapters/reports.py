"""What `compress` and `decompress` tell while they work, and in the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnc_core.lazy import LazyMapping
from nnc_core.records import dataclass

__all__ = ["CompressReport", "DecompressReport", "Meter", "Progress", "Watched", "passing"]

Progress = Callable[[int, int], None]
"""Called with the number of tensors done and their total."""

Meter = Callable[[str, int, int], None]
"""Called with what is being done, the bytes of tensors that are done, and about how many there are."""


@dataclass(frozen=True, slots=True)
class CompressReport:
    """What `compress` did.

    ``bytes_before`` counts the model with its weights, wherever the format keeps these. ``weights`` are the numbers in
    coded tensors, ``payload_bytes`` what these take, None where that was not counted: for a target that is not a file.
    ``warnings`` are sentences about what a user may not expect. Where the model was calibrated, ``calibrated`` names
    the weights whose errors make up for each other, since the inputs of their layers are known, and ``uncalibrated``
    the other weights, of which at most the step was chosen by what they do to the outputs.
    """

    bytes_before: int
    bytes_after: int
    tensors: int
    weights: int
    seconds: float
    payload_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    calibrated: tuple[str, ...] = ()
    uncalibrated: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        """The size of the bitstream in percent of the model's."""
        return 100 * self.bytes_after / max(self.bytes_before, 1)

    @property
    def bits_per_weight(self) -> float | None:
        """Bits for each number in a coded tensor, topology and headers of the model left out; None if not known."""
        return 8 * self.payload_bytes / self.weights if self.weights and self.payload_bytes is not None else None


@dataclass(frozen=True, slots=True)
class DecompressReport:
    """What `decompress` did; ``target`` is the file it wrote, or its URL."""

    target: Path | str
    tensors: int
    weights: int
    seconds: float


class Watched(LazyMapping[NDArray[Any]]):
    """Tensors that are counted, each name once, and shown to ``look`` as they pass; ``passed`` is told their bytes.

    ``nbytes`` are those of all that have passed.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        progress: Progress | None = None,
        look: Callable[[str, NDArray[Any]], None] | None = None,
        passed: Callable[[int], None] | None = None,
    ) -> None:
        self._tensors = tensors
        self._progress = progress
        self._look = look
        self._passed = passed
        self._seen: dict[str, int] = {}
        self.nbytes = 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._tensors[name]
        self.nbytes += 0 if name in self._seen else array.nbytes
        self._seen[name] = array.size
        if self._look is not None:
            self._look(name, array)
        if self._progress is not None:
            self._progress(len(self._seen), len(self._tensors))
        if self._passed is not None:
            self._passed(self.nbytes)
        return array

    def _names(self) -> Collection[str]:
        return self._tensors

    @property
    def weights(self) -> int:
        """The elements of all tensors that have passed."""
        return sum(self._seen.values())


def passing(meter: Meter | None, stage: str, total: int) -> Callable[[int], None] | None:
    """What tells ``meter`` how many of ``total`` bytes are done; they may turn out to be more."""
    return None if meter is None else lambda done: meter(stage, done, max(done, total))
