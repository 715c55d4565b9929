"""Pages of a real browser, of which a test fails if they log an error or throw an exception."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page

__all__ = ["clean_page"]

_TIMEOUT_MS = 120_000
"""For every wait; long, because the machine may be busy."""


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
