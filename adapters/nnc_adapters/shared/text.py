"""Text out of files, for people."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Escape what is not printable: names come out of files, and a terminal obeys control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
