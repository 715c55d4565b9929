"""URLs, and the filesystems of fsspec behind them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costbank.errors import CostbankError, InputError, InputNotFoundError, MissingExtraError, UsageError, require

__all__ = ["is_url", "remote_errors", "remote_filesystem"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(location: str) -> bool:
    return _URL.match(location) is not None


def remote_filesystem(url: str, extra: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path within it.

    Args:
        url: with any scheme that fsspec knows.
        extra: the extra of this project that installs fsspec, for the error.

    Raises:
        MissingExtraError: fsspec or its library for this URL scheme is not installed.
        UsageError: the URL scheme is unknown to fsspec.
    """
    fsspec = require("fsspec", extra)
    scheme = url.split("://")[0]
    try:
        with remote_errors(url):
            return fsspec.core.url_to_fs(url)
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise MissingExtraError(
                f"{scheme}:// URLs need a Python library that is not installed: {error.__cause__}",
                "install the library with pip, or copy the files to this machine",
            ) from error
        if isinstance(error.__cause__, ValueError) and "not known" in str(error.__cause__):
            raise UsageError(
                f"{url} has the unknown URL scheme {scheme}://",
                "use a scheme that fsspec supports, such as s3, gs, hf or https",
            ) from error
        raise


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Convert exceptions of remote libraries to errors of costbank.

    Raises:
        InputNotFoundError: the file does not exist.
        InputError: any other failure; each library has its own exceptions.
    """
    try:
        yield
    except CostbankError:
        raise
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{url} does not exist", "check the URL") from error
    except Exception as error:
        raise InputError(
            f"{url} cannot be read: {type(error).__name__}: {error}", "check the URL, the network and your credentials"
        ) from error
