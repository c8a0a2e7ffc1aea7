"""A browser for the tests of pages; ``make test-web`` says which."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser import Browser, browser


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    program = os.environ.get("NNC_BROWSER")
    if not program:
        pytest.skip("needs a browser (make test-web)")
    with browser(program) as running:
        yield running
