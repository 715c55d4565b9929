"""A web server whose answers a test chooses, for servers that are broken or lie."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Answer", "answering"]


@dataclass(frozen=True)
class Answer:
    """Status, body and headers; without a Content-Length, one that fits the body is sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    endless: bool = False


@contextmanager
def answering(answer: Callable[[str, Mapping[str, str]], Answer]) -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            chosen = answer(self.path, self.headers)  # type: ignore[arg-type]
            headers = dict(chosen.headers)
            if not chosen.endless:
                headers.setdefault("Content-Length", str(len(chosen.body)))
            self.send_response(chosen.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if headers.get("Content-Length") != str(len(chosen.body)):
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(chosen.body)
                while chosen.endless:
                    self.wfile.write(bytes(1 << 16))

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
