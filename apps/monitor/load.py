"""Load on the service: many series send a point a second, and some of them a spike.

    python -m apps.monitor.load BUNDLE [--series 1000] [--seconds 60] [--cores 0,1] [--kill]

The service is a process of its own over a folder of its own. First every series sends what it is learned
from; then, for the time that is measured, one point a second over WebSockets, a hundred series a frame. Every
frame's acknowledgement is waited for and every stored point is counted at the end: lost ones are an error.
A spike's time runs from the moment its alarm's last point is sent (an alarm needs `min_points` of them) to
the arrival of the alert at a webhook. --kill: kill -9 in the middle, and started again; what was not
acknowledged is sent again.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from apps.monitor.config import MonitorConfig
from apps.monitor.sender import Sender
from apps.monitor.service import serve
from apps.web.identity import digest_of
from runtimes.errors import EdgewiseError, InputError
from runtimes.load import load as load_model

A_FRAME = 100  # series
SPIKE = 8  # points that a spike lasts
SPIKED_SHARE = 0.1  # of the series
PERIOD = 32  # points of the waves that the series send
RULES_POINTS = 3  # AlarmRules.min_points


@dataclass
class Told:
    """What the run saw. `sent`: series → when each point of the measured time was sent, by its time."""

    acknowledged: int = 0
    errors: list[str] = field(default_factory=list)
    replies_s: list[float] = field(default_factory=list)
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    alerts: list[tuple[str, float, float]] = field(default_factory=list)  # series, start, arrived
    deliveries: dict[str, tuple[str, str]] = field(default_factory=dict)  # id: (alarm, kind)
    again: int = 0  # alerts that came under an id that had come before


def load(
    bundle: Path,
    series: int,
    seconds: int,
    cores: set[int] | None,
    variant: str | None = None,
    kill: bool = False,
) -> dict[str, Any]:
    """The figures of one run. Raises InputError where the service does not start."""
    digest_of(bundle)  # a bundle that is none is told here, in one line
    told = Told()
    with receiving(told) as url, running(bundle, variant, cores) as server:
        sender = Sender(server.port)
        health = sender.ask("GET", "/health")
        sender.ask("POST", "/webhooks", {"url": url})
        warm_up, began = learn(sender, series), time.time()
        busy = cpu_seconds(server.pid)
        if kill:
            threading.Timer(seconds / 2, server.kill_and_start).start()
        asyncio.run(press(server.port, series, seconds, warm_up, told))
        took, busy = time.time() - began, cpu_seconds(server.pid) - (0 if kill else busy)
        time.sleep(3)  # for the last alerts
        stored = sum(one["points"] for one in sender.ask("GET", "/series")["series"])
        kept = sum(path.stat().st_size for path in server.folder.iterdir())
        found = [one for one in told.alerts if of_a_spike(one[0], one[1], series)]
        late = [arrived - moment(told, name, start) for name, start, arrived in found]
        return {
            "model": f"{health['model']['bundle']} {health['model']['variant']}", "series": series,
            "seconds": seconds, "sent": series * seconds, "acknowledged": told.acknowledged,
            "lost": series * (warm_up + seconds) - stored, "errors": len(told.errors),
            "spikes": spiked(series), "found": len({name for name, _, _ in found}),
            "other_alarms": len(told.alerts) - len(found),
            "ack_ms": quantiles(told.replies_s), "alert_ms": quantiles(late),
            "told_twice": len(told.deliveries) - len(set(told.deliveries.values())),
            "sent_again": told.again, "down_s": round(server.down_s, 1),
            "cpu_cores": round(busy / took, 3), "rss_mb": round(rss_mb(server.pid), 1),
            "file_mb": round(kept / 1e6, 1), "first_errors": told.errors[:3],
        }  # fmt: skip


def learn(sender: Sender, series: int) -> int:
    """Sends what each series is learned from, and waits until all have learned; how many points each."""
    warm_up = 0
    for number in range(series):
        warm_up = warm_up or first_points(sender)
        times = np.arange(warm_up) + start_time(warm_up)
        sender.send(name_of(number), ["value"], times, wave(number, np.arange(warm_up)))
    until = time.monotonic() + 300
    while any(one["learned"] is None for one in sender.ask("GET", "/series")["series"]):
        if time.monotonic() > until:
            raise InputError("the series did not learn within 300 s")
        time.sleep(0.5)
    return warm_up


def first_points(sender: Sender) -> int:
    """How many points a series learns from, as the service says it of one."""
    sender.ask("POST", "/points", {"points": [{"series": "asked", "time": 0, "values": [0]}]})
    warm_up = int(sender.ask("GET", "/series/asked")["warm_up"])
    sender.ask("DELETE", "/series/asked")
    return warm_up


async def press(port: int, series: int, seconds: int, warm_up: int, told: Told) -> None:
    """One point a second of every series, a hundred series a frame, evenly over the second."""
    groups = [range(at, min(at + A_FRAME, series)) for at in range(0, series, A_FRAME)]

    async def send(place: int, group: range) -> None:
        began, frames = time.monotonic() + place / len(groups), Frames(port, seconds, told)
        talking = asyncio.create_task(frames.talk())
        for second in range(seconds):
            await asyncio.sleep(began + second - time.monotonic())
            at, now = warm_up + second, time.time()
            points = [
                {"series": name_of(one), "time": start_time(warm_up) + at, "values": [value]}
                for one, value in [(one, value_of(one, at, warm_up, series)) for one in group]
            ]
            told.sent |= {(name_of(one), second): now for one in group}
            frames.add(second, json.dumps({"id": second, "points": points}), len(points))
        await asyncio.wait_for(talking, 120)

    await asyncio.gather(*(send(place, group) for place, group in enumerate(groups)))


class Frames:
    """The frames of one connection, in order; one that was not acknowledged goes again over the next one."""

    def __init__(self, port: int, count: int, told: Told) -> None:
        self.port, self.left, self.told = port, count, told
        self.waiting: dict[int, tuple[float, str, int]] = {}  # by id: when it was made, text, points
        self.new = asyncio.Event()

    def add(self, id: int, text: str, points: int) -> None:
        self.waiting[id] = (time.time(), text, points)
        self.new.set()

    async def talk(self) -> None:
        """Until every frame is acknowledged."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        while self.left:
            try:
                async with connect(f"ws://127.0.0.1:{self.port}/ingest", proxy=None) as connection:
                    writer = asyncio.create_task(self._write(connection))
                    try:
                        while self.left:
                            self._heard(json.loads(await connection.recv()))
                    finally:
                        writer.cancel()
            except (OSError, WebSocketException):
                await asyncio.sleep(0.2)

    async def _write(self, connection: Any) -> None:
        sent = -1
        while True:
            self.new.clear()
            for id, (_, text, _) in sorted(self.waiting.items()):
                if id > sent:
                    await connection.send(text)
                    sent = id
            await self.new.wait()

    def _heard(self, reply: dict[str, Any]) -> None:
        made, _, points = self.waiting.pop(reply["id"])
        self.left -= 1
        self.told.replies_s.append(time.time() - made)
        if reply.get("stored", 0) + reply.get("repeated", 0) == points:
            self.told.acknowledged += points
        else:
            self.told.errors.append(str(reply))


_STARTED = time.time()


def start_time(warm_up: int) -> int:
    """The first point's time, such that the measured ones are about now and none is ahead."""
    return int(_STARTED) - warm_up


def name_of(number: int) -> str:
    return f"series-{number:04d}"


def wave(number: int, places: np.ndarray) -> np.ndarray:
    """float64 (n, 1): a wave with noise that is the series' own."""
    rng = np.random.default_rng([number, int(places[0])])
    return np.asarray(
        (np.sin(places * 2 * np.pi / PERIOD + number) + rng.normal(0, 0.05, len(places)))[:, None]
    )


def spiked(series: int) -> int:
    """How many series get a spike."""
    return max(1, int(series * SPIKED_SHARE))


def value_of(number: int, at: int, warm_up: int, series: int) -> float:
    """The point of a series at a place; in one of ten series it is far off for a while."""
    value, begins = float(wave(number, np.array([at]))[0, 0]), spike_second(number, series)
    return value + 10.0 * (begins is not None and 0 <= at - warm_up - begins < SPIKE)


def spike_second(number: int, series: int) -> int | None:
    """When the spike of a series begins, in seconds of the measured time; None for nine in ten."""
    step = max(1, series // spiked(series))
    return None if number % step else 10 + (number // step) % 30


def of_a_spike(name: str, start: float, series: int) -> bool:
    """Whether an alarm of that series that starts then is about its spike."""
    begins = spike_second(int(name.rpartition("-")[2]), series)
    return begins is not None and 0 <= round(start) - start_time(0) - begins < SPIKE


def moment(told: Told, name: str, start: float) -> float:
    """When the point was sent that made the alarm: the `RULES_POINTS`th over the threshold."""
    seconds = [second for one, second in told.sent if one == name]
    first = round(start) - start_time(0)
    return told.sent[name, min(max(first + RULES_POINTS - 1, 0), max(seconds))]


@contextmanager
def receiving(told: Told) -> Iterator[str]:
    """A webhook that notes when the alert of each opened alarm came."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.again += body["delivery"] in told.deliveries
            told.deliveries[body["delivery"]] = (body["alarm"], body["kind"])
            if body["kind"] == "opened":
                told.alerts.append((body["series"], body["start"], time.time()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class Server:
    """The service in a process of its own, over a folder of its own, at a port that stays the same."""

    def __init__(self, folder: Path, bundle: Path, variant: str | None, cores: set[int] | None) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.folder, self.how, self.down_s = folder, (folder, bundle, variant, self.port, cores), 0.0
        self.start()

    def start(self) -> None:
        """Returns when it answers. Raises InputError where it does not."""
        self.process = multiprocessing.get_context("spawn").Process(target=_serve, args=self.how, daemon=True)
        self.process.start()
        _wait_for(self.port, self.process)

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def kill_and_start(self) -> None:
        began = time.monotonic()
        self.process.kill()
        self.process.join()
        self.start()
        self.down_s += time.monotonic() - began

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(20)


@contextmanager
def running(bundle: Path, variant: str | None, cores: set[int] | None) -> Iterator[Server]:
    """A server, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        server = Server(Path(folder), bundle, variant, cores)
        try:
            yield server
        finally:
            server.stop()


def _serve(folder: Path, bundle: Path, variant: str | None, port: int, cores: set[int] | None) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    logging.getLogger("edgewise.web").addHandler(logging.NullHandler())  # a line a request says nothing here
    model = load_model(bundle, variant=variant, threads=1)
    config = MonitorConfig(port=port, per_minute=1_000_000, private_webhooks=True)
    serve(folder, model, digest_of(bundle), config)


def _wait_for(port: int, process: Any) -> None:
    until = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise InputError("the service did not start; try it with `edgewise serve BUNDLE --series FOLDER`")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far (proc(5)); 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Memory of a process, in MB; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and the largest, in milliseconds."""
    found = np.array(seconds or [float("nan")]) * 1000
    shares = {"p50": 50, "p95": 95, "max": 100}
    return {name: round(float(np.percentile(found, share)), 1) for name, share in shares.items()}


def main() -> int:
    """Prints the figures as JSON; exit code 1 where there are `faults`."""
    parser = argparse.ArgumentParser(prog="apps.monitor.load", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--variant", help="of the bundle; default: its own")
    parser.add_argument("--kill", action="store_true", help="kill -9 in the middle, and start again")
    parser.add_argument("--cores", help="of the service, such as 0,1; default: all")
    asked = parser.parse_args()
    cores = {int(one) for one in asked.cores.split(",")} if asked.cores else None
    try:
        told = load(asked.bundle, asked.series, asked.seconds, cores, asked.variant, asked.kill)
    except EdgewiseError as error:
        print(f"load: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, indent=1))
    wrong = faults(told, asked.kill)
    if wrong:
        print(f"load: {', '.join(wrong)}; see the figures", file=sys.stderr)
    return int(bool(wrong))


def faults(told: dict[str, Any], killed: bool) -> list[str]:
    """What must not be: points lost or refused, spikes not found, alerts told twice.

    After a kill an alert may come again under its old id; without one it may not.
    """
    counts = ["lost", "errors", "told_twice", *([] if killed else ["sent_again"])]
    missed = told["spikes"] - told["found"]
    return [f"{told[name]} {name}" for name in counts if told[name]] + [f"{missed} not found"] * bool(missed)


if __name__ == "__main__":
    sys.exit(main())
