"""Sentences about what is carried, that readers of several formats have in common."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["optimizer"]

_MUCH = 0.1


def optimizer(kept: int, whole: int) -> Iterator[str]:
    """What to say where an optimizer has so many bytes of the ``whole`` model to itself, if that is much."""
    if kept > _MUCH * whole:
        share = 100 * kept / whole
        yield (
            f"{share:.0f} % of the model are what an optimizer keeps for each weight, carried exactly; "
            "--drop-optimizer (keep_optimizer=False) leaves it behind"
        )
