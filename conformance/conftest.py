"""What several test files share."""

from __future__ import annotations

import pytest

from conformance.suite.files import Folder
from conformance.suite.generate import Generated, generate
from conformance.suite.quick import QUICK


@pytest.fixture(scope="session")
def quick_suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[Generated]]:
    """The rows of the conformance suite that are made within seconds, in a folder."""
    folder = Folder(tmp_path_factory.mktemp("suite"))
    return folder, list(generate(QUICK, folder))
