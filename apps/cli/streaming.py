"""What `edgewise run --stream` does: points from somewhere, alarms to standard output."""

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apps.monitor.lines import Batch, Lines, read_batches, tell
from apps.monitor.machine import machine_batches
from apps.monitor.watch import Watch
from runtimes.alarms import AlarmEvent
from runtimes.drift import DriftEvent
from runtimes.errors import InputError
from runtimes.stream import Scores

MOST_CHANNELS_TOLD = 3


def stream(watch: Watch, file: Path | None, machine: bool, as_json: bool) -> dict[str, Any]:
    """Watch one series until its source ends, or Ctrl-C or SIGTERM comes; a summary.

    Points that do not increase in time are left out and counted. Raises InputError for channels that change,
    and where no line had a point.
    """
    lines = Lines(tell, watch.last if watch.seen else None)
    with _until_told() as told, _source(file, machine, lines) as batches:
        try:
            for batch in batches:
                _tell_all(watch, batch, as_json)
                if told:
                    tell("stopped")
                    break
        finally:
            watch.save(now=True)
    if lines.bad and not watch.seen:
        raise InputError(f"none of {lines.count} lines has a point; see what was told of the first ones")
    return {"points": watch.seen, "late": watch.late, "learned": watch.profile is not None}


def threshold_of(told: str | None) -> float | str | None:
    """What --threshold says: a word, or a finite score. Raises InputError for anything else."""
    if told in (None, "pot", "quantile", "spot"):
        return told
    try:
        score = float(str(told))
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"--threshold {told}: give pot, quantile, spot or a score")
    return score


def _tell_all(watch: Watch, batch: Batch, as_json: bool) -> None:
    """What is to be told of a batch; told first, saved then."""
    known = watch.profile is not None
    times, scores, events = watch.push(batch)
    if watch.profile is not None and not known:
        _learned(watch, as_json)
    if scores is not None and as_json:
        _points(times, scores)
    for event in events:
        if isinstance(event, DriftEvent):
            _drift(event, as_json)
        else:
            _alarm(event, watch.names, as_json)
    if events or scores is not None:
        sys.stdout.flush()
    watch.save(now=bool(events))


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """The signals that came: Ctrl-C and SIGTERM let the batch at hand be finished; a second one does not."""
    told: list[int] = []

    def end(number: int, _: object) -> None:
        if told:
            raise KeyboardInterrupt
        told.append(number)

    heeded = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, end) for one in heeded}
    try:
        yield told
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _source(file: Path | None, machine: bool, lines: Lines) -> Iterator[Iterator[Batch]]:
    if machine:
        yield machine_batches()
        return
    if file is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("no points: pipe one a line, or give --file CSV or --machine")
        yield read_batches(sys.stdin.fileno(), lines)
        return
    if file.suffix.lower() == ".parquet":
        raise InputError(f"{file}: a stream reads CSV or JSON lines; convert it")
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; name a file of CSV or JSON lines") from None
    try:
        yield read_batches(descriptor, lines)
    finally:
        os.close(descriptor)


def _learned(watch: Watch, as_json: bool) -> None:
    assert watch.profile is not None
    about = {"kind": "learned", "points": watch.profile.points, "step": watch.profile.step}
    about |= {"channels": list(watch.names), "threshold": watch.profile.threshold}
    if as_json:
        print(json.dumps(about))
    else:
        names = ", ".join(watch.names[:8]) + (" …" if len(watch.names) > 8 else "")
        print(f"learned from {watch.profile.points} points, one in {watch.profile.step:g} s: {names}")
    sys.stdout.flush()


def _points(times: Any, scores: Scores) -> None:
    rows = zip(times.tolist(), scores.score.tolist(), scores.severity.tolist(), strict=True)
    for when, score, severity in rows:
        if not math.isnan(score):  # there is none while warming up
            print(f'{{"kind": "point", "time": {when!r}, "score": {score:.5g}, "severity": {severity:.4g}}}')


def _alarm(event: AlarmEvent, names: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps(event.to_json() | {"names": list(names)}))
        return
    order = sorted(range(len(names)), key=lambda channel: -event.channels[channel])[:MOST_CHANNELS_TOLD]
    seen = ", ".join(
        f"{names[channel]} {event.channels[channel]:.0%} ({_shown(event.seen[channel])}, "
        f"expected {_shown(event.expected[channel])})"
        for channel in order
        if event.channels[channel] >= 0.05
    )
    part = max(event.parts, key=lambda name: event.parts[name])
    start = _clock(event.start)
    when = start if event.kind == "opened" else f"{start} to {_clock(event.end)}"
    print(f"{event.kind:<6} {when}  severity {event.severity:.2f}  {part}: {seen}")


def _drift(event: DriftEvent, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"kind": "drift"} | asdict(event)))
        return
    what = "the scores" if event.what == "scores" else f"the {event.what} of {event.channel}"
    print(
        f"drift  {_clock(event.time)}  {what} moved by {event.shift:+.1f} usual spreads, over "
        f"{event.points} points; if it is to stay so, learn anew (another --state)"
    )


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"


def _clock(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"
