"""Errors say what and where, and still do in another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from nnc_core.errors import (
    LimitError,
    MissingDependencyError,
    ModelError,
    NncError,
    TruncatedError,
    UnsupportedError,
)

ERRORS = [
    TruncatedError("8 bits wanted", unit=3, bit_offset=17, element="nnr_unit_type", tensor="w", expected="more"),
    UnsupportedError("a feature"),
    UnsupportedError("a feature", "another text"),
    ModelError("is damaged", file="model.onnx", tensor="w"),
    LimitError("units", 5, 3, "the file"),
    MissingDependencyError("onnx", "onnx"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_between_processes(error: NncError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
