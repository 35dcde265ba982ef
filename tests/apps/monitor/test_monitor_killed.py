"""kill -9 under load, twice: nothing that was acknowledged is missing, and nothing is told twice."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from monitor_client import START, Receiver, wait_for
from tiny_detector import WARM_UP, waves

from apps.monitor import rows
from apps.monitor.sender import Sender

SERVE = """
import edgewise
from pathlib import Path
from apps.monitor.config import MonitorConfig
from apps.monitor.service import serve
model = edgewise.load({bundle!r}, threads=1)
config = MonitorConfig(port={port}, warm_up={warm_up}, per_minute=1000000, private_webhooks=True)
serve(Path({folder!r}), model, "tiny", config)
"""
NAMES = ("a", "b", "c")
RULES = {"min_points": 3, "cool_down_s": 5.0, "merge_gap_s": 20.0}
SPIKES = (90, 190, 290)
COUNT = 400


@contextlib.contextmanager
def service(folder: Path, bundle: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    program = SERVE.format(bundle=str(bundle), folder=str(folder), port=port, warm_up=WARM_UP)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        try:
            assert process.stderr
            line = next((line for line in process.stderr if "open http" in line), "")
            assert line, "the service did not start"
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that the pipe never fills
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def free_port() -> int:
    from apps.web.listening import listen

    with listen("127.0.0.1", 0) as taken:
        return int(taken.getsockname()[1])


def test_killed_under_load(folder: Path, detector: Any, detector_folder: Path) -> None:
    receiver, port = Receiver(), free_port()
    series = {name: waves(WARM_UP + COUNT, 2, seed) for seed, name in enumerate(NAMES)}
    for values in series.values():
        for at in SPIKES:
            values[WARM_UP + at : WARM_UP + at + 6, 0] += 8
    acknowledged: Counter[str] = Counter()

    def feed(name: str) -> None:
        """All points, four at a time; what was not acknowledged is sent again."""
        sender, values = Sender(port), series[name]
        for at in range(WARM_UP, len(values), 4):
            block = values[at : at + 4]
            sender.send(name, ["x", "y"], START + np.arange(at, at + len(block)), block)
            acknowledged[name] += len(block)

    feeders = [threading.Thread(target=feed, args=(name,), daemon=True) for name in NAMES]
    kills = 0
    with contextlib.ExitStack() as stack:
        stack.callback(receiver.stop)
        process = stack.enter_context(service(folder, detector_folder, port))
        sender = Sender(port)
        sender.ask("POST", "/webhooks", {"url": receiver.url, "cool_down_s": 0})
        for name, values in series.items():
            sender.send(name, ["x", "y"], START + np.arange(WARM_UP), values[:WARM_UP])
            wait_for(lambda name=name: sender.ask("GET", f"/series/{name}")["learned"])
            sender.ask("PUT", f"/series/{name}/rules", RULES)
        for feeder in feeders:
            feeder.start()
        for share in (0.3, 0.6):
            wait_for(lambda share=share: acknowledged.total() > share * COUNT * len(NAMES), 60)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert any(feeder.is_alive() for feeder in feeders)  # it was really in the middle
            kills += 1
            told = dict(acknowledged)
            with sqlite3.connect(f"file:{folder / 'monitor.sqlite'}?mode=ro", uri=True) as file:
                for name, stored in file.execute("SELECT name, count FROM series"):
                    assert stored >= WARM_UP + told.get(name, 0)  # more: its acknowledgement was on the way
            process = stack.enter_context(service(folder, detector_folder, port))
        for feeder in feeders:
            feeder.join(60)
        assert acknowledged.total() == COUNT * len(NAMES) and kills == 2
        sender = Sender(port)
        alarms = sender.ask("GET", "/alarms?limit=500")["alarms"]
        wait_for(lambda: len({body["delivery"] for body in receiver.bodies()}) >= 2 * len(alarms))
        time.sleep(0.3)
    check_alarms(alarms, receiver)
    check_scores(folder, series, detector)


def check_alarms(alarms: list[dict[str, Any]], receiver: Receiver) -> None:
    """One for each spike, told once; a delivery that a kill cut off may come again under its old id."""
    assert all(alarm["closed"] for alarm in alarms)
    for name in NAMES:
        starts = sorted(alarm["start"] - START - WARM_UP for alarm in alarms if alarm["series"] == name)
        assert len(starts) == len(SPIKES), starts
        assert all(at - 2 <= start <= at + 8 for at, start in zip(SPIKES, starts, strict=True)), starts
    deliveries = {body["delivery"]: (body["alarm"], body["kind"]) for body in receiver.bodies()}
    wanted = {(alarm["id"], kind) for alarm in alarms for kind in ("opened", "closed")}
    assert Counter(deliveries.values()) == Counter(wanted)


def check_scores(folder: Path, series: dict[str, np.ndarray], detector: Any) -> None:
    """They are what a stream gives that nobody ever killed."""
    most = detector.limits["window"] + detector.limits["patch"]
    with contextlib.closing(sqlite3.connect(folder / "monitor.sqlite")) as file:
        for id, name in file.execute("SELECT id, name FROM series").fetchall():
            values = series[name]
            told = rows.read(file, id, -1.0, 1e12, 5000)
            assert told["times"] == (START + np.arange(len(values))).tolist()
            stream = detector.stream(detector.fit(values[:WARM_UP], names=["x", "y"]))
            times = START + np.arange(len(values))
            stream.push(times[WARM_UP - most : WARM_UP], values[WARM_UP - most : WARM_UP])
            wanted = stream.push(times[WARM_UP:], values[WARM_UP:])
            found = np.array(told["scores"][WARM_UP:], dtype=float)
            np.testing.assert_allclose(found, wanted.score, atol=1e-5)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
