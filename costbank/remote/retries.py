"""Errors that pass: broken connections and busy servers. Work is repeated after a pause that grows."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from costbank.errors import UnreachableError

__all__ = ["Patience", "Retries", "TransientError", "retrying"]

_LONGEST_ASKED_S = 120.0

Answer = TypeVar("Answer")


class TransientError(Exception):
    """A request failed for a reason that may pass; internal to this package.

    Attributes:
        reason: in words.
        retry_after: the number of seconds that the server asks to wait; 0 if it does not.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


@dataclass(frozen=True)
class Patience:
    """How long to go on after errors that pass.

    Attributes:
        attempts: how often a request is sent if none gets further than the one before.
        first_pause: seconds before the second attempt; each later pause is twice as long, and up to half is random.
        longest_pause: seconds.
        timeout: seconds without a byte from the server.
    """

    attempts: int = 6
    first_pause: float = 0.5
    longest_pause: float = 20.0
    timeout: float = 30.0


class Retries:
    """Counts the failures of one piece of work, and waits after each."""

    def __init__(self, patience: Patience, what: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._patience, self._what, self._sleep = patience, what, sleep
        self._failures = 0

    def progressed(self) -> None:
        """The work got further, so that failures before no longer count."""
        self._failures = 0

    def failed(self, error: TransientError) -> None:
        """Wait for the next attempt.

        Raises:
            UnreachableError: there were enough attempts.
        """
        self._failures += 1
        if self._failures >= self._patience.attempts:
            raise UnreachableError(
                f"{self._what}: {error.reason} (tried {self._failures} times)",
                "check the URL, the network and the server, and run it again; what was downloaded is kept",
            ) from error
        pause = min(self._patience.first_pause * 2 ** (self._failures - 1), self._patience.longest_pause)
        self._sleep(max(pause * random.uniform(0.5, 1.0), min(error.retry_after, _LONGEST_ASKED_S)))


def retrying(patience: Patience, what: str, action: Callable[[], Answer]) -> Answer:
    """The result of an action, which is repeated after errors that pass.

    Raises:
        UnreachableError: there were enough attempts.
    """
    retries = Retries(patience, what)
    while True:
        try:
            return action()
        except TransientError as error:
            retries.failed(error)
