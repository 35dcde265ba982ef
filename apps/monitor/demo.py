"""The monitor with something to watch: this machine, or a recorded series that runs again.

    python -m apps.monitor.demo --machine
    python -m apps.monitor.demo --replay FILE.csv [--speed 600]

Open the address that it prints. --replay takes a CSV or Parquet file, a folder of them, or the name of a set
(nab/art_daily_jumpsup: the series of nab whose names hold that). Times stay as recorded: what was there
before is sent at once, as far as the model learns from it, and the rest runs at --speed times real time.
"""

import argparse
import logging
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apps.monitor.config import MonitorConfig
from apps.monitor.machine import machine_batches
from apps.monitor.sender import Sender
from apps.monitor.service import create_app
from apps.web.identity import digest_of
from apps.web.listening import listen, run
from runtimes.errors import EdgewiseError, InputError
from runtimes.load import load

BUNDLE = Path("runs/monitor/monitor.bundle")
MACHINE_WARM_UP = 256  # points: about four minutes
BEAT_S = 0.2  # between two requests of a replay
MOST_SERIES = 20


def watch_machine(sender: Sender) -> None:
    """Sends this machine's figures, once a second, for ever."""
    for batch in machine_batches():
        sender.send("this-machine", batch.names, batch.times, batch.values)


def replay(sender: Sender, series: list[Any], speed: float, warm_up: int) -> None:
    """Sends recorded series side by side: the first `warm_up` points at once, then at `speed`."""
    names = [name_of(one.name) for one in series]
    for name, one in zip(names, series, strict=True):
        sender.send(name, one.names, one.times[:warm_up], one.values[:warm_up])
    began, sent = time.monotonic(), [min(warm_up, len(one)) for one in series]
    while any(at < len(one) for at, one in zip(sent, series, strict=True)):
        time.sleep(BEAT_S)
        passed = (time.monotonic() - began) * speed
        for place, (name, one) in enumerate(zip(names, series, strict=True)):
            at = sent[place]
            if at >= len(one):
                continue
            until = int(np.searchsorted(one.times, one.times[warm_up - 1] + passed, side="right"))
            if until > at:
                sender.send(name, one.names, one.times[at:until], one.values[at:until])
                sent[place] = until
    print("demo: the recording is over; the page stays until Ctrl-C", file=sys.stderr)


def recorded(place: str) -> list[Any]:
    """The series of a file or a set. Raises InputError where there are none."""
    from trainers.series import read_series
    from trainers.series_sets import read_set, set_names

    name, _, part = place.partition("/")
    if name in set_names():
        found = [one for one in read_set(name) if part.lower() in one.name.lower()]
    else:
        found = read_series(place)
    if not found:
        raise InputError(f"{place}: no series; name a file, or a set with a part of a name behind a slash")
    return found[:MOST_SERIES]


def name_of(text: str) -> str:
    """A name that the service takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[-64:].lstrip("-._") or "series"


def demo(bundle: Path, feed: Callable[[Sender], None], config: MonitorConfig, folder: Path) -> None:
    """The service in this process, fed by a thread, until interrupted."""
    listener = listen(config.host, config.port)
    port = listener.getsockname()[1]
    app = create_app(folder, load(bundle, threads=1), digest_of(bundle), config)

    def work() -> None:
        try:
            feed(Sender(port))
        except EdgewiseError as error:
            print(f"demo: {error}", file=sys.stderr)

    threading.Thread(target=work, daemon=True).start()
    print(f"http://127.0.0.1:{port}/", flush=True)
    logging.getLogger("edgewise.web").addHandler(logging.NullHandler())  # a line a request says nothing here
    run(app, listener, config.host, config.max_body_bytes)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="apps.monitor.demo", description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--machine", action="store_true", help="watch this machine")
    what.add_argument("--replay", metavar="FILE", help="a file, a folder, or set/part of a name")
    parser.add_argument("--speed", type=float, default=600.0, help="times real time (default 600)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"default {BUNDLE}")
    parser.add_argument("--folder", type=Path, help="where the service keeps its data; default: a fresh one")
    parser.add_argument("--port", type=int, default=8080)
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="edgewise-") as scratch:
            folder = asked.folder or Path(scratch)
            if asked.machine:
                config = MonitorConfig(port=asked.port, warm_up=MACHINE_WARM_UP)
                demo(asked.bundle, watch_machine, config, folder)
            else:
                series = recorded(asked.replay)
                warm_up = max(64, min(512, min(len(one) for one in series) // 4))
                config = MonitorConfig(port=asked.port, warm_up=warm_up, keep_days=3650)
                feed = lambda sender: replay(sender, series, asked.speed, warm_up)  # noqa: E731
                demo(asked.bundle, feed, config, folder)
    except EdgewiseError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
