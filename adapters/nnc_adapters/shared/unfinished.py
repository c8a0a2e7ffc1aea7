"""What has to be undone where the program ends before it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["undo_unfinished", "undone"]

_unfinished: list[Callable[[], None]] = []


@contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Call ``undo`` where the block ends with an error, and where the program ends inside it (`undo_unfinished`)."""
    _unfinished.append(undo)
    try:
        yield
    except BaseException:
        undo()
        raise
    finally:
        _unfinished.remove(undo)


def undo_unfinished() -> None:
    """Undo what has begun in any thread, because the program ends now."""
    for undo in reversed(_unfinished):
        with suppress(OSError):
            undo()
