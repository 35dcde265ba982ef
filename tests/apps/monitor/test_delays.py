"""Delays and false alarms of a real, tiny detector on a made wave."""

import numpy as np
import pytest

from apps.monitor.delays import PLAIN, alarms_of, delays_of, report, wave
from runtimes.alarms import AlarmRules
from runtimes.load import load
from trainers.detector import DetectorConfig, train_detector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    config = DetectorConfig(kind="subspace", window=64, patch=8)
    return load(train_detector([wave(4000)], config, tmp_path_factory.mktemp("delays") / "m").path, threads=1)


def test_a_spike_a_drift_and_a_stuck_sensor_are_caught_in_time(model) -> None:
    series = wave(4000)
    profile = model.fit(series.train, series.names, step=60)
    for kind, within in (("spike", 8), ("drift", 128), ("stuck", 128)):
        delays = delays_of(kind, series, model, profile, rounds=3)
        assert len(delays) >= 9
        known = delays[~np.isnan(delays)]
        assert len(known) >= 0.6 * len(delays), kind
        assert np.median(known) <= within, kind


def test_calm_points_raise_few_alarms_and_rules_make_them_fewer(model) -> None:
    series = wave(4000)
    profile = model.fit(series.train, series.names, step=60)
    plain, ruled = (alarms_of(series, model, profile, rules) for rules in (PLAIN, AlarmRules()))
    assert len(ruled) <= len(plain) <= 10
    assert all(start >= series.times[series.train_end] for start in plain)


def test_the_report_is_a_table(model) -> None:
    text = report(wave(4000), model)
    assert "false alarms there:" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert len({row.count("|") for row in rows}) == 1
