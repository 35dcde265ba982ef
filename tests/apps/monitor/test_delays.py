"""Delays and false alarms of a real, tiny detector on a made wave, by the service's own series and rules."""

from dataclasses import replace

import numpy as np
import pytest

from apps.monitor.delays import KINDS, delay, learned, plant, report, watched, wave
from apps.monitor.live import rules_for
from runtimes.alarms import AlarmRules, Alarms
from runtimes.load import load
from trainers.detector import DetectorConfig, train_detector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    config = DetectorConfig(kind="subspace", window=64, patch=8)
    return load(train_detector([wave(4000)], config, tmp_path_factory.mktemp("delays") / "m").path, threads=1)


@pytest.fixture(scope="module")
def watch(model):
    series = wave(4000)
    live = learned(series, model)
    planted = plant(series, 2)
    return series, live, planted, watched(live, series, {one.start for one in planted})


@pytest.mark.parametrize(
    ("kind", "within"), [("spike", 8), ("drift", 128), ("stuck", 80), ("level shift", 12)]
)
def test_nearly_all_are_told_in_time(watch, kind: str, within: int) -> None:
    series, live, planted, calm = watch
    delays = np.array([delay(live, series, calm, one) for one in planted if one.kind == kind])
    known = delays[~np.isnan(delays)]
    assert len(delays) == 10
    assert len(known) >= 9
    assert np.median(known) <= within
    assert known.min() >= live.rules.min_points - 1  # the alarm opens, not the score rises


def test_the_alarms_are_those_of_the_whole_array_under_the_rules(watch, model) -> None:
    series, live, _, calm = watch
    assert live.rules == rules_for(60.0)
    assert len(calm.opened) <= 1
    scores = model.score(series.values, live.profile)
    late = slice(series.train_end + 256, None)  # until then the stream has less of the past than the array
    over = scores.score[late] >= live.threshold
    assert (calm.over[256:] == over).mean() > 0.999


def test_nothing_put_in_is_nothing_found_and_cool_down_delays(watch) -> None:
    series, live, planted, calm = watch
    one = next(one for one in planted if one.kind == "level shift")
    same = replace(one, values=series.values[one.start : one.start + len(one.values)])
    assert np.isnan(delay(live, series, calm, same))
    state, alarms = calm.states[one.start]
    quiet = Alarms(AlarmRules(), {**alarms, "quiet": float(series.times[one.start]) + 30 * 60}).state()
    held = replace(calm, states={one.start: (state, quiet)})
    assert delay(live, series, held, one) == 30


def test_the_report_is_a_table(model) -> None:
    text = report(wave(4000), model, rounds=1)
    assert "Rules: 3 points, 600 s of cool-down, 180 s of merging." in text
    assert "False alarms there: 0 opened (0.0 a day)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(KINDS)
    assert len({row.count("|") for row in rows}) == 1
