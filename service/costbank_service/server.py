"""Running the application under uvicorn, in the foreground or in a thread."""

import functools
import logging.config
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from costbank.errors import UsageError
from costbank_service.app import create_app
from costbank_service.keys import KeyRing
from costbank_service.logs import log_config
from costbank_service.protocol import ProblemProtocol
from costbank_service.settings import Settings, check_exposure
from costbank_service.workers import factory, run_workers

__all__ = ["run", "serving"]


def run(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish running requests.

    Args:
        settings: the store, the address and the limits.
        on_ready: called with the base URL when the socket listens.

    Raises:
        UsageError: the address is in use or not of this machine, it is not loopback and no key is set, or the file of
            keys cannot be used.
    """
    with _listening(settings) as listener:
        if on_ready:
            on_ready(_url(settings, listener))
        if settings.workers > 1:
            logging.config.dictConfig(log_config(settings))
            run_workers(_config(settings, factory(settings), log_config(settings), settings.workers), listener)
        else:
            uvicorn.Server(_config(settings, factory(settings), log_config(settings))).run(sockets=[listener])


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve in another thread until the block ends; yields the base URL.

    Raises:
        UsageError: as in `run`.
    """
    with _listening(settings) as listener:
        server = uvicorn.Server(_config(settings, functools.partial(create_app, settings), None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="costbank-service")
        thread.start()
        try:
            yield _url(settings, listener)
        finally:
            server.should_exit = True
            thread.join()


def _config(
    settings: Settings, factory: Callable[[], ASGIApp], logs: dict[str, Any] | None, workers: int = 1
) -> uvicorn.Config:
    return uvicorn.Config(
        factory, factory=True, http=ProblemProtocol, ws="none", log_config=logs, log_level="warning", access_log=False,
        workers=workers, timeout_keep_alive=settings.keep_alive_s, timeout_graceful_shutdown=settings.drain_s,
    )  # fmt: skip


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    check_exposure(settings)
    KeyRing(settings)  # so that a file of keys that cannot be used is an error before the socket listens
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it; asyncio sets it only for sockets that it made itself. Without it, the second
        # packet of an answer waits until the client acknowledges the first, which takes up to 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                "choose another --port; 0 picks a free one",
            ) from error
        listener.listen(128)  # from now on connections are queued until the server accepts them
        yield listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
