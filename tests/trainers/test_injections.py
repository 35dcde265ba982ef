"""Injected anomalies: where they say they are, of the kinds they say, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.injections import KINDS, inject


def normal(points=4000, channels=3):
    random, time = np.random.default_rng(0), np.arange(points)
    return np.sin(time / 8)[:, None] + 0.1 * random.normal(size=(points, channels))


@given(st.integers(0, 50), st.integers(1, 12), st.integers(20, 100), st.integers(0, 2000))
@settings(max_examples=40, deadline=None)
def test_only_labelled_points_of_the_named_channels_change(seed, count, length, skip):
    values = normal()
    made, labels, done = inject(values, count=count, length=length, seed=seed, skip=skip)
    assert not labels[:skip].any() and len(done) <= count
    changed = made != values
    assert not changed[labels == 0].any()
    assert labels.sum() == sum(one["end"] - one["start"] for one in done)
    for one in done:
        rows = changed[one["start"] : one["end"]]
        assert set(np.flatnonzero(rows.any(axis=0))) == set(one["channels"])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(kind):
    values = normal()
    made, _, done = inject(values, (kind,), count=3, seed=1)
    assert [one["kind"] for one in done] == [kind] * 3
    again, _, _ = inject(values, (kind,), count=3, seed=1)
    np.testing.assert_array_equal(made, again)
    first = made[done[0]["start"] : done[0]["end"], done[0]["channels"][0]]
    if kind == "stuck":
        assert np.ptp(first) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_missing_points_stay_missing_and_the_rest_changes(kind):
    values = normal()
    values[::3] = np.nan
    made, labels, _ = inject(values, (kind,), count=3, seed=1)
    assert (np.isnan(made) == np.isnan(values)).all()
    assert (made != values)[(labels > 0) & ~np.isnan(values).any(axis=1)].any()


def test_a_short_series_takes_fewer():
    _, labels, done = inject(normal(100), length=64)
    assert done == [] and not labels.any()
