"""Drift: quiet while nothing changes, and found within stated delays once something does."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.drift import Drift, DriftRules, compare, rules_for
from runtimes.errors import InputError

BLOCK, REFERENCE, RECENT = 64, 40, 8
LEARNT = BLOCK * REFERENCE
DELAY = BLOCK * (RECENT + 1)


def profile(channels: int = 2, period: int | None = None):
    return SimpleNamespace(
        names=tuple(f"c{i}" for i in range(channels)),
        centre=np.zeros(channels),
        scale=np.ones(channels),
        period=period,
        step=1.0,
    )


def waves(points: int, seed: int = 0, memory: float = 0.9, channels: int = 2) -> np.ndarray:
    """A daily wave with noise that remembers: what makes tests of single points cry wolf."""
    noise = np.random.default_rng(seed).normal(size=(points, channels))
    for i in range(1, points):
        noise[i] += memory * noise[i - 1]
    return np.sin(np.arange(points) * 2 * np.pi / 48)[:, None] + 0.3 * noise


def pushed(drift: Drift, values: np.ndarray, scores: np.ndarray | None = None, start: int = 0) -> list:
    scores = np.abs(np.random.default_rng(9).normal(size=len(values))) if scores is None else scores
    found = []
    for i in range(0, len(values), 50):
        times = np.arange(i, min(i + 50, len(values))) + start
        event = drift.push(times, scores[i : i + 50], values[i : i + 50])
        found += [event] if event else []
    return found


def test_a_series_that_stays_the_same_raises_hardly_anything() -> None:
    found = []
    for seed in range(12):
        found += pushed(Drift(profile(), rules_for(48)), waves(20_000, seed))
    assert len(found) <= 1  # in 240,000 points of remembering noise


@pytest.mark.parametrize("change", ["level", "spread", "scores"])
def test_a_change_is_found_within_nine_blocks(change: str) -> None:
    values = waves(LEARNT + 3000, seed=3)
    scores = np.abs(np.random.default_rng(1).normal(size=len(values)))
    since = LEARNT + 1000
    if change == "level":
        values[since:, 1] += 4
    if change == "spread":
        values[since:, 0] *= 4
    if change == "scores":
        scores[since:] += 2
    (event,) = pushed(Drift(profile(), DriftRules(block=BLOCK)), values, scores)
    assert since < event.time <= since + DELAY
    expected = {"level": ("mean", "c1"), "spread": ("spread", "c0"), "scores": ("scores", "")}[change]
    assert (event.what, event.channel) == expected
    assert event.shift > 3
    assert event.chance < 1e-4


def test_a_slow_slide_is_found_too() -> None:
    values = waves(LEARNT + 12_000, seed=4, channels=1)
    values[LEARNT:, 0] += np.linspace(0, 8, 12_000)
    events = pushed(Drift(profile(1), DriftRules(block=BLOCK)), values)
    assert events[0].what == "mean"
    assert events[0].time < LEARNT + 6000


def test_it_speaks_once_until_reset_or_return() -> None:
    values = waves(LEARNT + 12_000, seed=5)
    values[LEARNT + 500 : LEARNT + 4000] += 5
    values[LEARNT + 8000 :] += 5
    drift = Drift(profile(), DriftRules(block=BLOCK))
    events = pushed(drift, values)
    assert len(events) == 2  # it came, went, and came again
    assert drift.drifted
    drift.reset()
    assert not pushed(drift, waves(6000, seed=6) + 5)  # the new usual


def test_missing_points_and_warm_up_count_for_nothing() -> None:
    values = waves(LEARNT + 4000, seed=7)
    scores = np.ones(len(values))
    scores[:200] = np.nan
    values[LEARNT + 1000 : LEARNT + 3000] = np.nan
    scores[LEARNT + 1000 : LEARNT + 3000] = np.nan
    assert not pushed(Drift(profile(), DriftRules(block=BLOCK)), values, scores)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, LEARNT + 1500), seed=st.integers(0, 3))
def test_a_restart_anywhere_changes_nothing(cut: int, seed: int) -> None:
    values = waves(LEARNT + 1500, seed)
    values[LEARNT + 600 :] += 4
    scores = np.abs(values[:, 0])
    times = np.arange(len(values))
    whole = Drift(profile(), DriftRules(block=BLOCK))
    expected = whole.push(times, scores, values)
    before = Drift(profile(), DriftRules(block=BLOCK))
    first = before.push(times[:cut], scores[:cut], values[:cut])
    state = json.loads(json.dumps(before.state()))
    after = Drift(profile(), DriftRules(block=BLOCK), state)
    assert (after.push(times[cut:], scores[cut:], values[cut:]) or first) == expected
    assert after.state() == whole.state()


def test_the_state_stays_small() -> None:
    drift = Drift(profile(), DriftRules(block=BLOCK))
    pushed(drift, waves(LEARNT + 1000))
    size = len(json.dumps(drift.state()))
    pushed(drift, waves(20_000), start=LEARNT + 1000)
    assert len(json.dumps(drift.state())) < size * 1.2


def test_equal_samples_are_likely_and_apart_ones_are_not() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(40, 400))
    _, chances = compare(first, generator.normal(size=(8, 400)))
    assert (chances < 0.05).mean() < 0.08  # about one in twenty, as a chance should
    shifts, chances = compare(first, generator.normal(size=(8, 400)) + 9)
    assert (chances < 1e-5).all()
    assert (shifts > 5).all()


BAD_STATES = [
    None, 3, {}, {"schema": 2}, {"schema": 1, "block": 64, "drifted": False},
    {"schema": 1, "block": 64, "drifted": False, "open": [[1]], "reference": [], "recent": []},
    {"schema": 1, "block": 63, "drifted": False, "open": [], "reference": [], "recent": []},
    {"schema": 1, "block": 64, "drifted": False, "open": [], "reference": [], "recent": [[0.0] * 5] * 9},
]  # fmt: skip


@pytest.mark.parametrize("state", BAD_STATES[1:], ids=str)
def test_a_wrong_state_is_one_line(state: object) -> None:
    with pytest.raises(InputError, match="state of drift") as caught:
        Drift(profile(), DriftRules(block=BLOCK), state)
    assert "\n" not in str(caught.value)


def test_wrong_pushes_and_rules_are_one_line() -> None:
    drift = Drift(profile())
    for times, scores, values in (([1], [1, 2], [[1, 2]]), ([1], [1], [[1]]), (["x"], [1], [[1, 2]])):
        with pytest.raises(InputError, match="drift: "):
            drift.push(times, scores, values)
    with pytest.raises(InputError, match="drift: block"):
        DriftRules(block=1)
    with pytest.raises(InputError, match="drift: shift"):
        DriftRules(shift=0)
