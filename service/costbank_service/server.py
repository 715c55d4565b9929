"""Running the application under uvicorn, in the foreground or beside other work."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from costbank.errors import UsageError
from costbank_service.app import create_app
from costbank_service.protocol import ProblemProtocol
from costbank_service.settings import Settings, check_exposure

__all__ = ["run", "serving"]

_SECONDS_TO_DRAIN = 10


def run(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish the running requests.

    Args:
        settings: where and what to serve.
        on_ready: told the base URL once the socket listens.

    Raises:
        UsageError: the address is taken or not ours, or open to others without a key.
    """
    with _listening(settings) as listener:
        if on_ready:
            on_ready(_url(settings, listener))
        _server(settings).run(sockets=[listener])


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The base URL of a service that runs in another thread until the block ends.

    Raises:
        UsageError: as in `run`.
    """
    with _listening(settings) as listener:
        server = _server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="costbank-service")
        thread.start()
        try:
            yield _url(settings, listener)
        finally:
            server.should_exit = True
            thread.join()


def _server(settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(settings), http=ProblemProtocol, ws="none", log_level="warning", access_log=False,
        timeout_graceful_shutdown=_SECONDS_TO_DRAIN,
    )  # fmt: skip
    return uvicorn.Server(config)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    check_exposure(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                "choose another --port; 0 takes a free one",
            ) from error
        listener.listen(128)  # from here on connections wait in the queue until the server takes them
        yield listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
