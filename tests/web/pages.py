"""Pages of a real browser, of which a test fails if they log an error or throw an exception."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

__all__ = ["chromium_browser", "clean_page"]

# WebGL without a GPU, and no sandbox, because a container has no user namespaces.
_FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

_TIMEOUT_MS = 120_000
"""For every wait; long, because the machine may be busy."""


@contextmanager
def chromium_browser() -> Iterator[Browser]:
    """Debian's Chromium. While Playwright runs, nothing else in this process can run an event loop.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def clean_page(browser: Browser, expected: Sequence[str] = (), **options: Any) -> Iterator[Page]:
    """A new page.

    Args:
        browser: opens the page.
        expected: parts of messages that the page may log; read at the end.
        options: those of `Browser.new_page`, such as `color_scheme`.

    Raises:
        AssertionError: at the end, if the page has logged an error or a script of it has failed.
    """
    page = browser.new_page(**options)
    page.set_default_timeout(_TIMEOUT_MS)
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        page.close()
    assert [error for error in errors if not any(part in error for part in expected)] == []
