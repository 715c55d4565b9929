"""Files on other machines, through fsspec: which filesystem a URL belongs to, and its failures as ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costbank.errors import CostbankError, InputError, InputNotFoundError, MissingExtraError, UsageError, require

__all__ = ["is_url", "remote_errors", "remote_filesystem"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(location: str) -> bool:
    return _URL.match(location) is not None


def remote_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path of the URL in it.

    Raises:
        MissingExtraError: fsspec, or the library that it needs for this kind of URL, is not installed.
        UsageError: nothing is known of this kind of URL.
    """
    fsspec = require("fsspec", "corpus")
    scheme = url.split("://")[0]
    try:
        with remote_errors(url):
            return fsspec.core.url_to_fs(url)
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise MissingExtraError(
                f"{scheme}:// needs a Python library that is not installed: {error.__cause__}",
                "pip install that library, or copy the files to this machine",
            ) from error
        if isinstance(error.__cause__, ValueError) and "not known" in str(error.__cause__):
            raise UsageError(
                f"{url}: no such kind of URL as {scheme}://", "s3, gs, hf, http and others that fsspec knows are read"
            ) from error
        raise


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn whatever a remote library raises into our errors.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: anything else; each of the libraries has errors of its own.
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
