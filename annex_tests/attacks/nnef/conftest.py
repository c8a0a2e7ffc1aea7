"""What the tests in this folder share."""

from __future__ import annotations

import pytest

from nnc_adapters.base import Options
from nnc_adapters.nnef import NnefAdapter
from nnc_core.limits import Limits


@pytest.fixture
def adapter():
    return NnefAdapter()


@pytest.fixture
def read(adapter, tmp_path):
    """Reads an archive from its bytes, with all of its tensors."""

    def call(data, limits=None):
        path = tmp_path / "m.nnef.tar"
        path.write_bytes(data)
        model = adapter.read(path, Options(limits or Limits()))
        return {name: model.tensors[name] for name in model.tensors}

    return call
