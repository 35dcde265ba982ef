"""Two promises held to the published sets: a stream scores as an array does, and severity is what it says.

    python -m apps.monitor.same runs/monitor/monitor.bundle
    python -m apps.monitor.same runs/monitor/monitor.bundle --sets nab ucr --variants onnx-int8 --points 5000

Each series is scored as one array, and as a stream: in pushes of random lengths, with its state and profile
written to JSON and read back in between. Then, of its calm points after the training part, the share whose
severity is over what one in 10^2, 10^3, 10^4 and 10^8 should be. Ends with 1 where a difference is over 1e-4.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import EdgewiseError
from runtimes.evidence import LONG
from runtimes.load import load
from runtimes.profile import Profile, profile_of
from runtimes.stream import Scores
from trainers.detection_metrics import BUFFER
from trainers.series import Series
from trainers.series_sets import read_set, set_names

MOST = 1e-4  # that a score may differ
POINTS = 20_000
PUSH = 200  # points in one push, at most
CHANCES = (1e-2, 1e-3, 1e-4, 1e-8)
SEVERITIES = tuple(1 - 0.5 ** (np.log(chance) / np.log(1e-4)) for chance in CHANCES)
FIELDS = ("score", "severity", "channels", "parts", "expected")
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-full_int8")


@dataclass
class Found:
    """Of one set and variant: the largest difference of a score and of what goes with it, relative to the
    series' own scale; calm points, and how many of them are over each of SEVERITIES; by series, too."""

    series: int = 0
    points: int = 0
    score: float = 0.0
    rest: float = 0.0
    calm: int = 0
    over: np.ndarray = field(default_factory=lambda: np.zeros(len(SEVERITIES), int))
    shares: list[float] = field(default_factory=list)


def in_pushes(model: Any, profile: Profile, series: Series, random: np.random.Generator) -> Scores:
    """The scores of a stream that is cut anywhere; every other push or so it starts again from its state."""
    stream, pieces, start = model.stream(profile), [], 0
    while start < len(series.values):
        stop = start + int(random.integers(1, PUSH + 1))
        pieces.append(stream.push(series.times[start:stop], series.values[start:stop]))
        start = stop
        if random.random() < 0.5:
            told = json.dumps([profile.to_json(), stream.state()])
            again, state = json.loads(told)
            stream = model.stream(profile_of(again), state)
    joined = {name: np.concatenate([getattr(one, name) for one in pieces]) for name in FIELDS}
    return Scores(**joined, seen=series.values)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest one; infinite where only one of them is NaN."""
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def calm_points(series: Series, memory: int) -> np.ndarray:
    """Bool (n,): after the training part, with no anomaly in the `memory` points before nor BUFFER after."""
    labels = np.zeros(len(series.values), bool) if series.labels is None else np.asarray(series.labels, bool)
    odd = np.concatenate([np.zeros(memory, bool), labels, np.zeros(BUFFER, bool)])
    total = np.concatenate([[0], np.cumsum(odd)])
    calm = total[memory + BUFFER + 1 :] == total[: len(labels)]
    calm[: series.train_end] = False
    return np.asarray(calm)


def judge(model: Any, group: Iterable[Series], points: int = POINTS, seed: int = 0) -> Found:
    """Both promises, of a model on some series, each cut to its first points."""
    random, found = np.random.default_rng(seed), Found()
    for whole in group:
        series = whole if len(whole) <= points else whole.cut(0, points, min(whole.train_end, points // 2))
        times = series.times[: series.train_end]
        profile = model.fit(series.train, series.names, times=times)
        wanted = model.score(series.values, profile, times=series.times)
        got = in_pushes(model, profile, series, random)
        found.series, found.points = found.series + 1, found.points + len(series)
        found.score = max(found.score, difference(got.score, wanted.score))
        rest = [difference(getattr(got, name), getattr(wanted, name)) for name in FIELDS[1:-1]]
        expected = difference(got.expected / profile.scale, wanted.expected / profile.scale)
        found.rest = max(found.rest, expected, *rest)
        calm = calm_points(series, LONG * model.limits["window"]) & ~np.isnan(wanted.score)
        over = (wanted.severity[calm, None] >= np.array(SEVERITIES)).sum(axis=0)
        found.calm, found.over = found.calm + int(calm.sum()), found.over + over
        if calm.any():
            found.shares.append(float(over[CHANCES.index(1e-4)] / calm.sum()))
    return found


def report(rows: list[tuple[str, str, Found]]) -> str:
    """One line a set and variant."""
    head = f"{'set':<6}{'variant':<20}{'series':>7}{'points':>10}{'score':>10}{'rest':>10}{'calm':>10}"
    lines = [head + "".join(f"{f'>1e{np.log10(chance):.0f}':>9}" for chance in CHANCES) + "   kept by"]
    for name, variant, one in rows:
        shares = "".join(f"{over / max(one.calm, 1):>9.1e}" for over in one.over)
        kept = sum(share <= 1e-4 for share in one.shares)  # by how many series one in 10^4 is kept
        lines.append(
            f"{name:<6}{variant:<20}{one.series:>7}{one.points:>10,}{one.score:>10.1e}{one.rest:>10.1e}"
            f"{one.calm:>10,}{shares}   {kept} of {len(one.shares)}"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m apps.monitor.same")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--sets", nargs="+", default=set_names(), choices=set_names())
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--points", type=int, default=POINTS, help="of each series, the first ones")
    given = parser.parse_args(argv)
    rows: list[tuple[str, str, Found]] = []
    try:
        models = {name: load(given.bundle, variant=name, threads=1) for name in given.variants}
        for name in given.sets:
            group = read_set(name)
            for variant, model in models.items():
                rows.append((name, variant, judge(model, group, given.points)))
                lines = report(rows).splitlines()
                print("\n".join(lines if len(rows) == 1 else lines[-1:]), flush=True)
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return int(max(max(one.score, one.rest) for _, _, one in rows) > MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
