"""Figures of the running service in Prometheus' text format.

A few counters, gauges and histograms are all there is, so these lines stand in for a client library.
https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4)
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.web.guard import logged_path

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Name → what it says. Labels take values of ours only (routes, outcomes), never of a request.
Counters = Mapping[str, str]
Histograms = Mapping[str, tuple[str, tuple[float, ...]]]  # with the upper bounds of the buckets
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts from any thread; `gauges` are read when asked for: name → (what it says, value)."""

    def __init__(self, counters: Counters, histograms: Histograms) -> None:
        self.counters, self.histograms = counters, histograms
        self.lock = threading.Lock()
        self.counts: dict[tuple[str, Labels], int] = defaultdict(int)
        self.values: dict[str, list[float]] = {}  # name: one count a bucket, then sum and count
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """So many more of a counter."""
        with self.lock:
            self.counts[name, tuple(sorted(labels.items()))] += amount

    def see(self, name: str, value: float) -> None:
        """One more value of a histogram."""
        bounds = self.histograms[name][1]
        with self.lock:
            row = self.values.setdefault(name, [0.0] * (len(bounds) + 2))
            for index, bound in enumerate(bounds):
                row[index] += value <= bound
            row[-2] += value
            row[-1] += 1

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        with self.lock:
            return "\n".join([*self._counters(), *self._histograms(), *self._gauges()]) + "\n"

    def _counters(self) -> Iterator[str]:
        for name, about in self.counters.items():
            yield from _head(f"{name}_total", about, "counter")
            for (of, labels), count in sorted(self.counts.items()):
                if of == name:
                    yield f"edgewise_{name}_total{_labels(labels)} {count}"

    def _histograms(self) -> Iterator[str]:
        for name, (about, bounds) in self.histograms.items():
            yield from _head(name, about, "histogram")
            row = self.values.get(name, [0.0] * (len(bounds) + 2))
            for bound, count in zip(bounds, row, strict=False):
                yield f'edgewise_{name}_bucket{{le="{bound}"}} {count:.0f}'
            yield f'edgewise_{name}_bucket{{le="+Inf"}} {row[-1]:.0f}'
            yield f"edgewise_{name}_sum {row[-2]:.6f}"
            yield f"edgewise_{name}_count {row[-1]:.0f}"

    def _gauges(self) -> Iterator[str]:
        for name, (about, value) in self.gauges.items():
            yield from _head(name, about, "gauge")
            yield f"edgewise_{name} {value():g}"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP edgewise_{name} {about}", f"# TYPE edgewise_{name} {kind}"]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


def counted(app: ASGIApp, metrics: Metrics, known: Container[str]) -> ASGIApp:
    """Counts all answers in `requests` by the route's own path: never by what was asked for."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.add("requests", path=logged_path(scope, known), status=str(message["status"]))
            await send(message)

        await app(scope, receive, counting if scope["type"] == "http" else send)

    return call
