"""What tests of hostile files of PyTorch have in common."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from annex_tests.support.handmade_pytorch import CONFIG, Reference, Tensor, archive, exported, legacy, pickled
from nnc_adapters.base import Options

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
OPAQUE = Options(opaque=True)
FORMS = pytest.mark.parametrize("form", [archive, legacy])
FILES = {
    "archive": archive(
        {"w": Tensor(), "v": [Tensor(Reference("1"), shape=(4, 5), strides=(1, 4))]}, {"data/1": bytes(80)}
    ),
    "legacy": legacy({"w": Tensor()}),
    "torchscript": archive(
        b"\x80\x02c__torch__.Net\nNet\n)\x81}U\x01wI1\nsb.", **{"constants.pkl": pickled([Tensor()])}
    ),
    "export": exported(CONFIG),
}
