"""How soon a detector tells, and how often for nothing, in a live stream: `python -m apps.monitor.delays`.

Anomalies of known kinds are put into the later half of a calm series, which the detector has not seen. The
service's own series (`apps.monitor.live`) learns from the first half, and then gets one point after another.
What counts is the alarm that opens under the service's rules: a delay is the number of points from the first
one of the anomaly to the one at which its alarm opens.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from apps.monitor.live import Live, learn
from runtimes.alarms import Alarms
from runtimes.errors import EdgewiseError
from runtimes.load import load
from runtimes.stream import Stream
from trainers.detector import DetectorConfig, train_detector
from trainers.injections import inject
from trainers.series import Series, events
from trainers.series_sets import ANOMALY_FREE, read_set

KINDS = ("spike", "drift", "stuck", "level shift", "noise burst")
LENGTH = 128
ROUNDS = 10


@dataclass(frozen=True)
class Planted:
    """An anomaly of `kind` at the points from `start` to before `end`; `values` (n, channels) are the points
    from `start` on, the anomaly and what follows it."""

    kind: str
    start: int
    end: int
    values: np.ndarray


@dataclass(frozen=True)
class Calm:
    """What the service told of the points after the training part as they are: at which alarms `opened`,
    `over` (n,) bool, the points over the threshold, and the written states before some points."""

    opened: set[int]
    over: np.ndarray
    states: dict[int, tuple[dict[str, Any], dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, help="a detector's bundle; else one is trained for each series"
    )
    parser.add_argument("--variant", help="of the bundle")
    parser.add_argument("--kind", default="transformer", help="what is trained without a bundle")
    options = parser.parse_args()
    try:
        free = next(one for one in read_set("skab") if one.family == ANOMALY_FREE)
        for series in (wave(), free):
            with TemporaryDirectory() as folder:
                config = replace(DetectorConfig(), kind=options.kind)
                path = options.bundle or train_detector([series], config, Path(folder) / "model").path
                model = load(path, variant=options.variant, threads=1)
                print(report(series, model))
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def wave(points: int = 10_000, seed: int = 0) -> Series:
    """A load with a cycle of 96 points and a temperature that follows it, a minute apart; the noise
    remembers a little. Half of it is the training part."""
    noise = np.random.default_rng(seed).normal(size=(points, 2))
    for place in range(1, points):
        noise[place] += 0.5 * noise[place - 1]
    cycle = np.sin(np.arange(points) * 2 * np.pi / 96)
    values = np.stack([50 + 20 * cycle, 40 + 5 * np.roll(cycle, 12)], axis=1) + noise * [2.0, 0.5]
    labels = np.zeros(points, bool)
    return Series(
        "wave", "made", np.arange(points) * 60.0, values, ("load", "heat"), labels, points // 2, 60.0
    )


def report(series: Series, model: Any, rounds: int = ROUNDS) -> str:
    """Markdown: false alarms on the calm later half under the service's rules, delays of what is put in."""
    live = learned(series, model)
    planted = plant(series, rounds)
    calm = watched(live, series, {one.start for one in planted})
    hours = (len(series) - series.train_end) * series.step / 3600
    rules, runs, opened = live.rules, len(events(calm.over)), len(calm.opened)
    lines = [
        f"{series.name}: {len(series.names)} channels, {hours:.1f} h of calm after training.",
        f"Rules: {rules.min_points} points, {rules.cool_down_s:g} s of cool-down, "
        f"{rules.merge_gap_s:g} s of merging.",
        f"False alarms there: {opened} opened ({24 * opened / hours:.1f} a day); "
        f"{runs} runs over the threshold.",
        "",
        "| put in | n | alarms | delay p50 | p90 | longest, points |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        delays = np.array([delay(live, series, calm, one) for one in planted if one.kind == kind])
        known = delays[~np.isnan(delays)]
        told = [f"{np.quantile(known, q):.0f}" if len(known) else "–" for q in (0.5, 0.9, 1)]
        lines.append(f"| {kind} | {len(delays)} | {len(known)} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def learned(series: Series, model: Any) -> Live:
    """The series as the service holds it after it has learned from the training part."""
    live = Live(0, series.name, series.names, 0.0)
    learn(live, model, series.times[: series.train_end], series.train)
    return live


def plant(series: Series, rounds: int) -> list[Planted]:
    """Five anomalies of each kind a round, after the training part, in points that are else as they were."""
    found = []
    for kind in KINDS:
        for seed in range(rounds):
            made, _, done = inject(
                series.values, (kind,), count=5, length=LENGTH, seed=seed, skip=series.train_end
            )
            for one in done:
                start, end = int(str(one["start"])), int(str(one["end"]))
                found.append(Planted(kind, start, end, made[start : end + LENGTH // 2]))
    return found


def watched(live: Live, series: Series, places: Iterable[int]) -> Calm:
    """The points after the training part, one by one, with the states before those at `places`."""
    assert live.stream is not None and live.alarms is not None and live.threshold is not None
    wanted, states = set(places), {}
    opened, over = set(), np.zeros(len(series) - series.train_end, bool)
    for place in range(series.train_end, len(series)):
        if place in wanted:
            states[place] = (live.stream.state(), live.alarms.state())
        told, score = _pushed(live.stream, live.alarms, live, series.times[place], series.values[place])
        over[place - series.train_end] = score >= live.threshold
        if told:
            opened.add(place)
    return Calm(opened, over, states)


def _pushed(
    stream: Stream, alarms: Alarms, live: Live, time: float, values: np.ndarray
) -> tuple[bool, float]:
    """Whether an alarm opened with this point, and its score."""
    assert live.threshold is not None
    scores = stream.push([time], values[None])
    told = alarms.push([time], scores, live.threshold)
    return any(event.kind == "opened" for event in told), float(scores.score[0])


def delay(live: Live, series: Series, calm: Calm, one: Planted) -> float:
    """Points from the anomaly's start to the one at which an alarm opens; NaN where none does until half of
    LENGTH after its end. One that opens there without the anomaly too does not count."""
    assert live.stream is not None and live.profile is not None
    state, told = calm.states[one.start]
    stream, alarms = Stream(live.stream.model, live.profile, state), Alarms(live.rules, told)
    for number, values in enumerate(one.values):
        place = one.start + number
        opened, _ = _pushed(stream, alarms, live, series.times[place], values)
        if opened and place not in calm.opened:
            return float(number)
    return float("nan")


if __name__ == "__main__":
    main()
