"""The examples in the documentation of the package work."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import nnc_core
from nnc_core import writing
from nnc_core.planner import parameters


def modules_with_examples() -> Iterator[str]:
    for module in pkgutil.walk_packages(nnc_core.__path__, "nnc_core."):
        if examples(module.name):
            yield module.name


def examples(name: str) -> int:
    finder = doctest.DocTestFinder()
    return sum(len(test.examples) for test in finder.find(importlib.import_module(name)))


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_the_examples_of_a_module_work(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.attempted == examples(name)
    assert result.failed == 0


def test_the_entry_points_of_the_package_have_examples() -> None:
    assert {writing.__name__, parameters.__name__} <= set(modules_with_examples())
