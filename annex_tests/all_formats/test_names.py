"""Names, roles and the rest of a model come from its structure: other values change none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annex_tests.support.every_format import MODELS, written
from nnc_adapters import registry
from nnc_core.nnr_model import SourceModel


def zeros(array: NDArray[Any]) -> NDArray[Any]:
    return np.zeros_like(array)


def ones(array: NDArray[Any]) -> NDArray[Any]:
    return np.ones_like(array)


def trained(array: NDArray[Any]) -> NDArray[Any]:
    noise = np.random.default_rng(array.size).normal(0, 3, array.shape)
    return noise.astype(array.dtype) if array.dtype.kind == "f" else array


def described(model: SourceModel) -> Any:
    """All but exact tensors, which stay in the topology where that is smaller."""
    shapes = {name: (array.shape, array.dtype.name) for name, array in model.tensors.items() if name not in model.exact}
    return list(shapes.items()), {what: {n: v for n, v in of.items() if n in shapes} for what, of in roles(model)}


def roles(model: SourceModel) -> list[tuple[str, dict[str, Any]]]:
    return [(what, dict(of)) for what, of in model.model_info.items() if isinstance(of, dict)]


@pytest.mark.parametrize("values", [zeros, ones, trained])
@pytest.mark.parametrize("kind", MODELS)
def test_other_values_of_the_same_structure_change_no_names_and_no_roles(
    tmp_path: Path, kind: str, values: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    name, files = MODELS[kind]
    path = written(name, files(), tmp_path / "source")
    adapter = registry.find(path)
    model = adapter.read(path)
    floats = {n: values(a) if a.dtype.kind == "f" else a for n, a in model.tensors.items()}
    assert model.topology is not None
    again = tmp_path / "other" / path.name
    again.parent.mkdir()
    adapter.write(floats, model.topology, again)
    other = adapter.read(again)
    assert described(other) == described(model)
    assert list(other.tensors)
