"""Profiles: what is fitted, what survives a file, what is refused, and what a fitted one catches."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_detector import WINDOW, plain_detector

from runtimes.errors import InputError
from runtimes.profile import profile_of, scales
from runtimes.thresholds import RISK

MODEL = plain_detector()


def noisy(points=3000, seed=0):
    random, time = np.random.default_rng(seed), np.arange(points)
    return np.stack([np.sin(time / 6), np.cos(time / 9)], axis=1) + 0.1 * random.normal(size=(points, 2))


PROFILE = MODEL.fit(noisy(), ["a", "b"])


def test_a_profile_survives_its_file():
    again = profile_of(json.dumps(PROFILE.to_json()))
    assert again.to_json() == PROFILE.to_json()
    assert again.names == ("a", "b") and again.chosen == "pot 0.0001"


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99}, {"names": []}, {"names": [1, 2]}, {"scale": [0, 1]}, {"scale": [1]}, {"tail": {}},
        {"step": 0}, {"step": "soon"}, {"threshold": float("nan")}, {"usual": [[1]]}, {"centre": [[1], [2]]},
    ],
)  # fmt: skip
def test_a_broken_profile_is_refused(change):
    with pytest.raises(InputError, match="profile"):
        profile_of(PROFILE.to_json() | change)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda x: st.lists(x, max_size=3)))
def test_anything_else_is_refused(told):
    with pytest.raises(InputError, match="profile"):
        profile_of(told)


def test_false_alarms_are_about_as_rare_as_was_asked():
    scores = MODEL.score(noisy(40_000, seed=5), PROFILE).score
    assert (scores > PROFILE.threshold).mean() < 20 * RISK


def test_severity_rises_to_one_and_is_half_at_the_pot_threshold():
    levels = PROFILE.severity(np.linspace(0, 10 * PROFILE.threshold, 200))
    assert (np.diff(levels) >= 0).all() and levels[0] == 0 and 0.95 < levels[-1] <= 1
    assert PROFILE.severity(np.array([PROFILE.threshold]))[0] == pytest.approx(0.5)


def caught(change, within):
    values = noisy(1200, seed=7)
    values[800:] = change(values[800:])
    scores = MODEL.score(values, PROFILE).score
    assert (scores[200:800] > PROFILE.threshold).mean() < 0.01
    first = np.flatnonzero(scores[800:] > PROFILE.threshold)
    assert len(first) and first[0] <= within, first[:1]


def test_a_spike_is_caught_at_once():
    caught(lambda points: np.concatenate([points[:1] + 3, points[1:]]), 2)


def test_a_level_shift_is_caught():
    caught(lambda points: points + np.array([1.5, 0]), WINDOW)


def test_a_stuck_sensor_is_caught():
    caught(lambda points: np.stack([points[:, 0], np.full(len(points), points[0, 1])], axis=1), 4 * WINDOW)


def test_a_slow_drift_is_caught():
    caught(lambda points: points + np.linspace(0, 8, len(points))[:, None], 10 * WINDOW)


def test_a_constant_channel_says_nothing_until_it_moves():
    still = noisy()
    still[:, 1] = 5.0
    profile = MODEL.fit(still)
    assert profile.constant.tolist() == [False, True]
    values = noisy(600, seed=3)
    values[:, 1] = 5.0
    calm = MODEL.score(values, profile)
    assert (calm.score > profile.threshold).mean() < 0.01
    values[400:, 1] = 5.5
    moved = MODEL.score(values, profile)
    assert moved.score[401] > profile.threshold and moved.channels[401].argmax() == 1


def test_a_series_that_never_moves_has_a_profile():
    profile = MODEL.fit(np.zeros((200, 1)))
    assert not (MODEL.score(np.zeros((200, 1)), profile).score > profile.threshold).any()


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=50))
def test_scales_are_above_zero(values):
    centre, scale, _ = scales(np.array(values)[:, None])
    assert scale[0] > 0 and np.isfinite([centre[0], scale[0]]).all()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((10, 1)), "too few"),
        (np.zeros((100, 9)), "at most 8"),
        (np.zeros((100, 0)), "at most 8"),
        (np.zeros((4, 5, 6)), "shape"),
        (np.full((100, 1), np.nan), "no value"),
        ([["x"]] * 100, "numbers"),
    ],
)
def test_points_that_teach_nothing_are_refused(values, told):
    with pytest.raises(InputError, match=told):
        MODEL.fit(values)


def test_names_and_thresholds_are_checked():
    with pytest.raises(InputError, match="names"):
        MODEL.fit(noisy(), ["a", "a"])
    with pytest.raises(InputError, match="threshold"):
        MODEL.fit(noisy(), threshold="guess")
    assert MODEL.fit(noisy(), threshold=7).threshold == 7
    assert MODEL.fit(noisy(), threshold="quantile").chosen == "quantile 0.999"
