"""What the tests in this folder share."""

from __future__ import annotations

import warnings

import pytest

import nnc_adapters


@pytest.fixture(scope="session")
def tf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("tensorflow", reason="tensorflow-cpu is not installed")
        found.config.threading.set_intra_op_parallelism_threads(1)
        found.config.threading.set_inter_op_parallelism_threads(1)
        import keras  # noqa: F401
    return found


@pytest.fixture
def through(tmp_path):
    """A model after compressing and decompressing; what was done in between is in ``m.nnr``."""

    def call(path, **options):
        target = tmp_path / "restored" / path.name.removesuffix(".weights.json")
        target.parent.mkdir(exist_ok=True)
        nnc_adapters.compress(path, tmp_path / "m.nnr", force=True, **options)
        nnc_adapters.decompress(tmp_path / "m.nnr", target, force=True)
        return target

    return call
