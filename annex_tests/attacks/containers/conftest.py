"""What the tests in this folder share."""

from __future__ import annotations

import pytest

from annex_tests.support.hostile_containers import CONTAINER, read_all
from nnc_core.errors import ModelError


@pytest.fixture
def refused(tmp_path):
    """Asserts that a file is refused with an error that matches, and is not recognized as a container."""

    def check(name, data, match, error=ModelError):
        path = tmp_path / "hostile"
        path.write_bytes(data)
        with pytest.raises(error, match=match):
            read_all(name, path)
        CONTAINER[name].sniff(path)  # whatever it says, it says it without an error

    return check
