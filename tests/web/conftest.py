"""A real browser for tests of pages."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.pages import chromium_browser, clean_page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, for one module of tests: while Playwright runs, no other test can run an event loop."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed (Debian's package chromium)")
    expect.set_options(timeout=60_000)  # the machine may be busy
    with chromium_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if it logs an error."""
    with clean_page(browser) as page:
        yield page
