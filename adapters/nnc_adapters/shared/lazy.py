"""Mappings of arrays that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.lazy import LazyMapping

__all__ = ["LazyTensors", "check_names", "overlay"]


class LazyTensors(LazyMapping[NDArray[Any]]):
    """Arrays by name, each made anew whenever it is asked for."""

    def __init__(self, fetch: Mapping[str, Callable[[], NDArray[Any]]]) -> None:
        self._fetch = fetch

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._fetch[name]()

    def _names(self) -> Collection[str]:
        return self._fetch


def overlay(
    base: Mapping[str, NDArray[Any]], tensors: Mapping[str, NDArray[Any]], names: Mapping[str, str]
) -> LazyTensors:
    """``base`` with the values of ``tensors``; ``names`` lead from the names in ``base`` to theirs.

    `ModelError` for a tensor that ``base`` does not have.
    """
    for name in names:
        if name not in base:
            raise ModelError("the existing model has no such tensor", tensor=name)
    fetch = {name: partial(tensors.__getitem__, own) for name, own in names.items()}
    return LazyTensors({name: fetch.get(name, partial(base.__getitem__, name)) for name in base})


def check_names(tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """`ModelError` unless ``tensors`` are exactly those that a model has a place for."""
    for name in wanted:
        if name not in tensors:
            raise ModelError("the model needs this tensor, and it is not given", tensor=name)
    for name in tensors:
        if name not in wanted:
            raise ModelError("the model has no place for this tensor", tensor=name)
