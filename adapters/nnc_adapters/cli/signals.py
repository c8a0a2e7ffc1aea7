"""Signals that end the program: in order where that is quick, otherwise at once; nothing unfinished stays."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from nnc_adapters.shared.unfinished import undo_unfinished

__all__ = ["Terminated", "ended_in_order"]

_PATIENCE: Final = 1.0
"""Seconds for ending in order."""
_DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
_NUMBERS: Final = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if getattr(signal, name, None) is not None
]
_SHOW_CURSOR: Final = b"\x1b[?25h"


class Terminated(BaseException):
    """A signal ends the program."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let signals that would end the program at once raise `Terminated`; those that it ignores go on being ignored.

    That may be anywhere: between two steps of a lock on which a thread then waits for ever, or while others compute for
    a minute. So the program ends itself where this takes longer than a second, or with the next signal.
    """
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    heeded = {number: handler for number, handler in before.items() if handler in _DEFAULTS}

    def heed(number: int, frame: object) -> None:
        def end(*_: object) -> None:
            _end_at_once(128 + number)

        for each in heeded:
            signal.signal(each, end)
        heeded.clear()  # nothing else is to end the program any more
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise Terminated(number)

    try:
        for number in heeded:
            signal.signal(number, heed)
    except ValueError:  # none of them comes to any but the main thread
        heeded.clear()
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _end_at_once(code: int) -> None:
    undo_unfinished()
    if "tempfile" in sys.modules:
        _remove_folders(sys.modules["tempfile"].TemporaryDirectory)
    _show_cursor(sys.stderr)
    os._exit(code)


def _remove_folders(kind: Any) -> None:
    for each in gc.get_objects():
        if isinstance(each, kind):
            with suppress(OSError):
                each.cleanup()


def _show_cursor(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):
        if stream.isatty():
            os.write(stream.fileno(), _SHOW_CURSOR)
