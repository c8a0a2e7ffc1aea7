"""Tensors that are decoded before they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nnc_core.coder.pool import Job, Outcome, Window, merged
from nnc_core.lazy import LazyMapping

if TYPE_CHECKING:
    from concurrent.futures import Future

_Tensors = dict[str, NDArray[Any]]
_Outcome = Outcome[_Tensors]


class Ahead(LazyMapping[NDArray[Any]]):
    """Tensors of a file; asking for one starts the decoding of those that follow it in the bitstream.

    What has been decoded is kept until it is asked for, so each unit is decoded once in whatever order its tensors
    are taken. Where that differs from the bitstream's, fewer are decoded ahead.
    """

    def __init__(
        self, names: Sequence[Sequence[str]], jobs: Sequence[Job[_Tensors]], window: Window[_Outcome] | None
    ) -> None:
        self._window = window
        self._jobs = jobs
        self._places = {name: place for place, each in enumerate(names) for name in each}
        self._groups = list(merged(jobs))
        self._firsts = list(accumulate((count for _, count in self._groups), initial=0))
        self._next = 0
        self._running: dict[int, Future[_Outcome]] = {}
        self._decoded: dict[int, _Tensors] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self._places[name]
        if self._window is not None and name not in self._decoded.get(place, ()):
            self._fetch(bisect_right(self._firsts, place) - 1, self._window)
        if name not in self._decoded.get(place, ()):  # alone, failed, or asked for again
            self._decoded[place] = self._jobs[place].run()
        array = self._decoded[place].pop(name)
        if not self._decoded[place]:
            del self._decoded[place]
        return array

    def _fetch(self, group: int, window: Window[_Outcome]) -> None:
        """Take over what a group of neighbours gives, and start further ones."""
        if group >= self._next:
            self._next = group
            self._start(window)
        while self._next < len(self._groups) and window.has_room(self._groups[self._next][0].size):
            self._start(window)
        if group in self._running:
            results = window.take(self._running.pop(group)).results
            for place, tensors in enumerate(results, self._firsts[group]):
                self._decoded[place] = dict(tensors)

    def _start(self, window: Window[_Outcome]) -> None:
        self._running[self._next] = window.start(self._groups[self._next][0])
        self._next += 1

    def _names(self) -> Collection[str]:
        return self._places
