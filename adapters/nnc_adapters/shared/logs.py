"""Loggers below ``nnc_adapters``, which say what was decided and why to whoever listens; silent by themselves."""

from __future__ import annotations

import logging

__all__ = ["logger"]

logging.getLogger("nnc_adapters").addHandler(logging.NullHandler())


def logger(module: str) -> logging.Logger:
    """The logger of a module of this package."""
    return logging.getLogger(module)
