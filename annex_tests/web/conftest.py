"""A browser for the tests of pages; ``make test-web`` says which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from annex_tests.support.browser import Browser, BrowserError, browser


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    program = os.environ.get("NNC_BROWSER")
    if not program:
        pytest.skip("needs a browser (make test-web)")
    with ExitStack() as stack:
        try:
            running = stack.enter_context(browser(program))
        except (BrowserError, OSError) as error:
            pytest.skip(f"{program} does not start: {error}")
        yield running
