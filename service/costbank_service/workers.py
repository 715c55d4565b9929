"""Several processes that share one listening socket; one that dies is replaced."""

import functools
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from contextlib import ExitStack
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from costbank_service.app import create_app
from costbank_service.metrics import MULTIPROCESS_FOLDER
from costbank_service.settings import Settings

__all__ = ["factory", "run_workers", "worker_app"]

_UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP)

logger = logging.getLogger("costbank.service")


class _Workers(Multiprocess):
    """uvicorn's supervisor, which remembers the signal that ended it, and the metrics of workers that died."""

    ended_by: int | None = None

    def handle_int(self) -> None:
        self._end(signal.SIGINT)

    def handle_term(self) -> None:
        self._end(signal.SIGTERM)

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            logger.warning("worker %s has died; another one replaces it", pid)
            if pid is not None:
                mark_process_dead(pid)

    def _end(self, number: int) -> None:
        self.ended_by = self.ended_by or number
        self.should_exit.set()


def run_workers(config: uvicorn.Config, listener: socket.socket) -> None:
    """Serve with `config.workers` processes until SIGINT or SIGTERM, which is raised again at the end.

    Args:
        config: how each worker serves what `factory` returns.
        listener: the socket that all workers accept connections from.
    """
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals() if number not in _UNCATCHABLE}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="costbank-metrics-"))
        os.environ[MULTIPROCESS_FOLDER] = folder  # the workers inherit it
        stack.callback(os.environ.pop, MULTIPROCESS_FOLDER)
        workers = _Workers(config, [listener])
        try:
            workers.run()
        finally:
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
    if workers.ended_by is not None:
        signal.raise_signal(workers.ended_by)


def worker_app(settings: Settings) -> FastAPI:
    """The application in a worker, which ends when the supervisor has died."""
    threading.Thread(target=_end_with_parent, name="costbank-parent", daemon=True).start()
    return create_app(settings)


def factory(settings: Settings) -> Any:
    """What uvicorn calls in each worker; it can be sent to another process."""
    return functools.partial(worker_app, settings)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
