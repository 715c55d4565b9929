"""A relay between a client and a real server, which counts requests and can damage what the server sends."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["Damage", "Relay", "relay"]

_LINE = re.compile(rb"(?:GET|HEAD) (\S+) HTTP/1.1\r\n((?:[^\r\n]+\r\n)*)\r\n")

Damage = Callable[[str, int, bytes], bytes | None]
"""Gets the path of the request, the offset in the answer and bytes of it; None breaks the connection."""


def _no_damage(path: str, offset: int, data: bytes) -> bytes:
    return data


class Relay:
    """Attributes:
    requests: the path of each request, with `range` after it if it asked for a part.
    damage: what happens to the answers; tests replace it.
    """

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.requests: list[str] = []
        self.damage: Damage = _no_damage
        self._listener, self._target = listener, target
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def count(self, file: str) -> int:
        """How often a file was requested, whole or in part."""
        return sum(request.split()[0].endswith(f"/files/{file}") for request in self.requests)

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            self._open += [client, server]
            state = {"path": "", "offset": 0}

            def upward() -> None:
                with suppress(OSError):
                    while data := client.recv(1 << 16):
                        for path, headers in _LINE.findall(data):
                            state["path"], state["offset"] = path.decode(), 0
                            has_range = b"\r\nrange:" in b"\r\n" + headers.lower()
                            self.requests.append(path.decode() + (" range" if has_range else ""))
                        server.sendall(data)
                    server.shutdown(socket.SHUT_WR)

            threading.Thread(target=upward, daemon=True).start()
            try:
                while data := server.recv(1 << 16):
                    damaged = self.damage(state["path"], state["offset"], data)
                    if damaged is None:
                        return
                    state["offset"] += len(data)
                    client.sendall(damaged)
            finally:  # closing alone would not end the connection while the other thread reads from it
                client.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """A relay to the server at a URL, in threads, until the block ends."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relayed = Relay(listener, (host, int(port)))
        threading.Thread(target=relayed.run, daemon=True).start()
        try:
            yield relayed
        finally:
            relayed.close()
