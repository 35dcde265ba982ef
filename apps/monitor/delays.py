"""How soon a detector says so, and how often for nothing: `python -m apps.monitor.delays`.

Anomalies of known kinds are put into the later half of a calm series, which the detector has not seen (its
profile is fitted on the first half), and the points go through it as a stream does. Alarms are those of the
service: scores over the threshold under AlarmRules.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from runtimes.alarms import AlarmRules, Alarms
from runtimes.errors import EdgewiseError
from runtimes.load import load
from trainers.detector import DetectorConfig, train_detector
from trainers.injections import inject
from trainers.series import Series
from trainers.series_sets import ANOMALY_FREE, read_set

KINDS = ("spike", "drift", "stuck", "level shift", "noise burst")
LENGTH = 128
ROUNDS = 10
PLAIN = AlarmRules(min_points=1, cool_down_s=0, merge_gap_s=0)


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


def report(series: Series, model: Any) -> str:
    """Markdown: false alarms on the calm later half, plain and under the service's rules, and delays."""
    profile = model.fit(series.train, series.names, step=series.step)
    calm = {name: alarms_of(series, model, profile, rules) for name, rules in _rules().items()}
    hours = (len(series) - series.train_end) * series.step / 3600
    lines = [f"{series.name}: {len(series.names)} channels, {hours:.1f} h of calm after training;"]
    lines += [f"false alarms there: {len(found)} {name}" for name, found in calm.items()]
    lines += [
        "",
        "| put in | n | found | delay p50 | p90 | longest, points |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        delays = delays_of(kind, series, model, profile)
        known = delays[~np.isnan(delays)]
        told = [f"{np.quantile(known, q):.0f}" if len(known) else "–" for q in (0.5, 0.9, 1)]
        lines.append(f"| {kind} | {len(delays)} | {len(known)} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _rules() -> dict[str, AlarmRules]:
    return {"over the threshold alone": PLAIN, "under the service's rules": AlarmRules()}


def alarms_of(series: Series, model: Any, profile: Any, rules: AlarmRules) -> list[float]:
    """Starts of the alarms after the training part, unix seconds."""
    scores = model.score(series.values, profile)
    told = Alarms(rules).push(series.times, scores, profile.threshold)
    starts = {event.id: event.start for event in told if event.kind == "opened"}
    return [start for start in starts.values() if start >= series.times[series.train_end]]


def delays_of(kind: str, series: Series, model: Any, profile: Any, rounds: int = ROUNDS) -> np.ndarray:
    """(anomalies,) points from the start of each to the first alarmed point in it, NaN where none was, nor in
    as many points after its end as the model's window has.

    A point that is alarmed without the anomaly too does not count.
    """
    plain = np.nan_to_num(model.score(series.values, profile).score) > profile.threshold
    found: list[float] = []
    for seed in range(rounds):
        made, _, done = inject(
            series.values, (kind,), count=5, length=LENGTH, seed=seed, skip=series.train_end
        )
        alarms = (np.nan_to_num(model.score(made, profile).score) > profile.threshold) & ~plain
        found += [_delay(alarms, one, model.limits["window"]) for one in done]
    return np.array(found)


def _delay(alarms: np.ndarray, one: dict[str, Any], window: int) -> float:
    start, end = int(one["start"]), int(one["end"])
    late: Sequence[int] = np.flatnonzero(alarms[start : end + window]).tolist()
    return float(late[0]) if late else float("nan")


if __name__ == "__main__":
    main()
