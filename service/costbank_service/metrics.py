"""Metrics in the format of Prometheus, of this process or, with several workers, of all of them."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["METRICS_TYPE", "MULTIPROCESS_FOLDER", "Metrics"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which workers share their metrics. It is set before they start."""

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NO_ROUTE = "none"


class Metrics:
    """The counters and gauges of one application."""

    def __init__(self) -> None:
        self._shared = bool(os.environ.get(MULTIPROCESS_FOLDER))
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "costbank_requests", "Requests by route and status", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "costbank_request_seconds", "Time until the whole answer was sent", ["route"], buckets=_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._refusals = Counter(
            "costbank_refusals", "Requests refused before they reached a route", ["reason"], registry=registry
        )
        self._gauges = {
            name: Gauge(f"costbank_{name}", about, registry=registry, multiprocess_mode="livesum")
            for name, about in (
                ("requests_running", "Requests to /v1 that are running"),
                ("resident_banks", "Banks in memory"),
                ("resident_bytes", "Bytes of the banks in memory"),
                ("searches_running", "Searches beyond the neighbor tables that are running"),
                ("searches_waiting", "Searches beyond the neighbor tables that are waiting"),
            )
        }
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count an answer; `route` is the template of its path, None if the path has no route."""
        key = method, route or _NO_ROUTE, status
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(key[0], key[1], str(status)), self._seconds.labels(key[1])
            )  # fmt: skip
        children[0].inc()
        children[1].observe(seconds)

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def set(self, **values: float) -> None:
        """Set gauges by name."""
        for name, value in values.items():
            self._gauges[name].set(value)

    def text(self) -> bytes:
        """All metrics; with several workers, their sums."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
