"""Sentences about what is carried, that readers of several formats have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["bitstreams", "optimizer"]

_MUCH = 0.1
_NNR = ".nnr"


def bitstreams(files: Iterable[str]) -> Iterator[str]:
    """The remark about bitstreams among the ``files`` that are not tensors of the model."""
    found = [name for name in files if name.lower().endswith(_NNR)]
    if found:
        yield f"bitstreams in the folder of the model are carried along like any other file: {', '.join(found[:3])}"


def optimizer(kept: int, whole: int) -> Iterator[str]:
    """The remark about an optimizer whose state has ``kept`` of the ``whole`` bytes of a model, if that is much."""
    if kept > _MUCH * whole:
        share = 100 * kept / whole
        yield (
            f"{share:.0f} % of the model is what an optimizer keeps for each weight, carried exactly; "
            "--drop-optimizer (keep_optimizer=False) leaves it behind"
        )
