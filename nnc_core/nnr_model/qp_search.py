"""Quantization parameters as coarse as the quality of a model allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["QpSearch", "coarsest"]

Holds = Callable[[Mapping[str, int]], bool]
"""Whether a model with these quantization parameters is good enough."""


@dataclass(frozen=True, slots=True)
class QpSearch:
    """How quantization parameters are searched; the names are those of Part 18's encoder options.

    ``opt_qp`` moves all by the same number, which is found by bisection. ``iter_opt`` does so in steps of ``qp_step``,
    and stops before the first one that is too coarse. ``ioq`` (inference-optimised quantization) then moves each by
    itself, again and again by ``qp_step``, until the next step of each would be too coarse, or after
    ``max_iterations`` rounds. Raises ValueError for numbers below 1.
    """

    opt_qp: bool = True
    iter_opt: bool = False
    ioq: bool = False
    qp_step: int = 1
    max_iterations: int = 64

    def __post_init__(self) -> None:
        for name in ("qp_step", "max_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


def coarsest(qp: Mapping[str, int], holds: Holds, search: QpSearch, highest: int) -> dict[str, int]:
    """The parameters ``qp``, in the order in which they matter for the size, made as coarse as ``holds`` allows.

    None becomes larger than ``highest``, or smaller than its opposite. Where those given do not hold they become finer
    by ``opt_qp`` or ``iter_opt``. The result was tried, and holds. Raises `ModelError` where none does.
    """

    def moved(offset: int) -> dict[str, int]:
        return {name: min(max(each + offset, -highest - 1), highest) for name, each in qp.items()}

    if not qp:
        return {}
    found, reach = dict(qp), 2 * highest + 1
    if search.opt_qp:
        found = moved(_bisected(lambda offset: holds(moved(offset)), reach))
    elif search.iter_opt:
        found = moved(_stepped(lambda offset: holds(moved(offset)), search, reach))
    elif not holds(found):
        raise ModelError("the model is not good enough with the given qp; set opt_qp or iter_opt, or finer ones")
    return _each(found, holds, search, highest) if search.ioq else found


def _bisected(holds: Callable[[int], bool], reach: int) -> int:
    """An offset that holds, while the next one does not; found by larger and larger steps, and then smaller ones."""
    good, step = _finer(holds, 1, reach), 1
    while good < reach and holds(min(good + step, reach)):
        good, step = min(good + step, reach), 2 * step
    bad = min(good + step, reach + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _stepped(holds: Callable[[int], bool], search: QpSearch, reach: int) -> int:
    good = _finer(holds, search.qp_step, reach)
    for _ in range(search.max_iterations):
        if good + search.qp_step > reach or not holds(good + search.qp_step):
            break
        good += search.qp_step
    return good


def _finer(holds: Callable[[int], bool], step: int, reach: int) -> int:
    """The first of 0 and ever finer offsets that holds."""
    offset = 0
    while not holds(offset):
        if offset <= -reach:
            raise ModelError("the model is not good enough even with the finest steps of weights; let it lose more")
        offset, step = max(offset - step, -reach), 2 * step
    return offset


def _each(qp: dict[str, int], holds: Holds, search: QpSearch, highest: int) -> dict[str, int]:
    found, movable = dict(qp), list[str](qp)
    for _ in range(search.max_iterations):
        movable = _round(found, movable, holds, search.qp_step, highest)
        if not movable:
            break
    return found


def _round(found: dict[str, int], movable: Sequence[str], holds: Holds, step: int, highest: int) -> list[str]:
    """Make each a step coarser where that holds; those that moved."""
    moved = []
    for name in movable:
        tried = {**found, name: found[name] + step}
        if tried[name] <= highest and holds(tried):
            found[name] = tried[name]
            moved.append(name)
    return moved
