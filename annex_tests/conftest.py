from __future__ import annotations

import pytest

from annex_tests.support import program


@pytest.fixture
def nnc() -> program.Nnc:
    """Run the program inside this process."""
    return program.nnc
