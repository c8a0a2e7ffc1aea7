"""What was decided and why, for whoever listens to the loggers below ``nnc_adapters``."""

from __future__ import annotations

import sys

__all__ = ["inform"]


def inform(module: str, message: str, *values: object) -> None:
    """Log a message of a module of this package at level ``INFO``.

    Nobody listens before ``logging`` is imported, which takes long.
    """
    if "logging" in sys.modules:
        import logging

        logging.getLogger(module).info(message, *values, stacklevel=2)
