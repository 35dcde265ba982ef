"""The command that compares streams with arrays sees a stream that is off, and counts calm points only."""

from dataclasses import replace

import numpy as np
from plain_detector import plain_detector

from apps.monitor.same import calm_points, difference, judge, report
from runtimes.tasks.detect import Detector
from trainers.series import Series


def series(count=1_500, label=(900, 950)):
    values = np.random.default_rng(1).normal(size=(count, 2)) + np.sin(np.arange(count) / 5)[:, None]
    labels = np.zeros(count, bool)
    labels[label[0] : label[1]] = True
    times = 1e9 + 60.0 * np.arange(count)
    times[1_200:] += 60 * 7
    return Series("one", "some", times, values, ("a", "b"), labels, 600, 60.0)


def test_a_stream_is_compared_with_its_array():
    found = judge(plain_detector(), [series(), series(700)], points=1_400)
    assert found.series == 2 and found.points == 2_100 and max(found.score, found.rest) < 1e-6
    assert 0 < found.calm < 900 and (np.diff(found.over) <= 0).all() and len(found.shares) == 2
    assert len(report([("some", "onnx-fp32", found)]).splitlines()) == 2


class Forgetful(Detector):
    """Loses its place when it is restored."""

    def stream(self, profile, state=None):
        return super().stream(profile, None if state is None else {**state, "phase": 0})


def test_a_stream_that_is_off_is_seen():
    plain = plain_detector()
    found = judge(Forgetful(plain.session, plain.limits, plain.about), [series()])
    assert found.score > 1e-3
    assert difference(np.array([np.nan, 1.0]), np.array([0.0, 1.0])) == float("inf")


def test_calm_is_what_no_anomaly_is_near_to():
    calm = calm_points(series(), 64)
    assert not calm[:600].any() and calm[600:800].all() and not calm[800:1_014].any() and calm[1_014:].all()
    unlabelled = replace(series(), labels=None)
    assert (calm_points(unlabelled, 64) == (np.arange(1_500) >= 600)).all()


def test_severity_is_what_it_says_on_a_series_that_stays_as_it_was():
    """Where the calm points are like those of the fit; a little careful, as the course counts at its most."""
    times = np.arange(24_000.0)
    values = np.random.default_rng(3).normal(size=(24_000, 2)) + np.sin(times / 5)[:, None]
    steady = Series("steady", "some", times, values, ("a", "b"), None, 4_000, 1.0)
    found = judge(plain_detector(), [steady], points=24_000)
    shares = found.over / found.calm
    assert 3e-4 < shares[0] < 2e-2 and shares[2] < 1e-3 and shares[3] == 0
