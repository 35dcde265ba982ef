"""Scores as points arrive: the same however they come, in bounded memory, and right about what is missing."""

import json
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_detector import PATCH, WINDOW, Frequencies, plain_detector

from runtimes.errors import InputError
from runtimes.profile import PARTS, profile_of
from runtimes.stream import BLOCK, advance, usual_step
from runtimes.tasks.detect import Detector

MODEL = plain_detector()


def waves(points, seed=0, channels=2):
    random, time = np.random.default_rng(seed), np.arange(points)
    clean = np.stack(
        [np.sin(time / (5 + 3 * channel)) * (channel + 1) for channel in range(channels)], axis=1
    )
    return clean + 0.1 * random.normal(size=clean.shape)


PROFILE = MODEL.fit(waves(2000), ["a", "b"], step=2.0)


def same(one, other):
    for name in ("score", "severity", "channels", "parts", "expected"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


@given(
    st.integers(0, 3),
    st.lists(st.integers(1, 199), max_size=12),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.lists(st.tuples(st.integers(1, 199), st.integers(1, 90)), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_gives_what_the_whole_array_gives(seed, cuts, missing, gaps):
    random, values = np.random.default_rng(seed), waves(200, seed)
    values[random.random(values.shape) < missing] = np.nan
    values[120:126] += 3
    times = 1e9 + 2.0 * np.arange(200)
    for at, size in gaps:
        times[at:] += 2.0 * size
    whole = MODEL.stream(PROFILE).push(times, values)
    stream, pieces = MODEL.stream(PROFILE), []
    for start, stop in pairwise(sorted({0, 200, *cuts})):
        pieces.append(stream.push(times[start:stop], values[start:stop]))
        stream = MODEL.stream(
            profile_of(json.dumps(PROFILE.to_json())), json.loads(json.dumps(stream.state()))
        )
    for name in ("score", "severity", "channels", "parts", "expected"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_an_array_over_many_blocks_and_single_points_agree():
    values = waves(BLOCK + 300)
    whole = MODEL.score(values, PROFILE)
    stream = MODEL.stream(PROFILE)
    single = [stream.push([2.0 * row], values[row : row + 1]).score[0] for row in range(400)]
    np.testing.assert_allclose(single, whole.score[:400], atol=1e-5)
    assert np.isfinite(whole.score[BLOCK - 50 :]).all()


def test_many_streams_share_engine_calls_and_score_as_alone():
    model = plain_detector()
    series = [waves(90 + number, number) for number in range(5)]
    pushes = [(model.stream(PROFILE), 2.0 * np.arange(len(one)), one) for one in series]
    together = advance(model, pushes)
    windows = sum(2 * ((len(one)) // PATCH - WINDOW // PATCH + 4) for one in series)
    assert len(model.session.calls) <= windows // model.limits["max_batch"] + 1
    for found, one in zip(together, series, strict=True):
        same(found, MODEL.score(one, PROFILE))


def test_a_stream_that_stands_twice_or_a_bad_one_moves_none():
    good, bad = MODEL.stream(PROFILE), MODEL.stream(PROFILE)
    before = good.state()
    with pytest.raises(InputError, match="twice"):
        advance(MODEL, [(good, [1], [[0, 0]]), (good, [2], [[0, 0]])])
    with pytest.raises(InputError, match="increase"):
        advance(MODEL, [(good, [1], [[0, 0]]), (bad, [2, 1], [[0, 0], [0, 0]])])
    assert good.state() == before and advance(MODEL, []) == []


class ByBatch(Frequencies):
    """Rounds as dynamic quantization does: by the largest value of the batch."""

    def run(self, feeds):
        found = super().run(feeds)["expected"]
        step = np.abs(found).max() / 127
        return {"expected": np.rint(found / step) * step}


def test_a_window_is_answered_the_same_whatever_comes_with_it():
    model = Detector(ByBatch(), MODEL.limits, {"precision": "int8"})
    values = waves(200)
    whole, stream = model.score(values, PROFILE), model.stream(PROFILE)
    found = [stream.push([2.0 * row], values[row : row + 1]).score[0] for row in range(200)]
    np.testing.assert_allclose(found, whole.score, atol=1e-5)


def test_nothing_that_comes_later_changes_a_score():
    values = waves(300)
    before = MODEL.score(values, PROFILE).score[:200]
    values[200:] = 99
    np.testing.assert_array_equal(MODEL.score(values, PROFILE).score[:200], before)


def test_memory_and_state_do_not_grow():
    stream, sizes = MODEL.stream(PROFILE), []
    values = waves(BLOCK)
    tracemalloc.start()
    for lap in range(6):
        stream.push(2.0 * (np.arange(BLOCK) + lap * BLOCK), values)
        sizes.append((tracemalloc.get_traced_memory()[0], len(json.dumps(stream.state()))))
    tracemalloc.stop()
    assert sizes[-1][0] - sizes[1][0] < 50_000 and abs(sizes[-1][1] - sizes[1][1]) < 10


def test_shares_add_up_and_tell_the_channel():
    values = waves(400)
    values[300:303, 1] += 8
    scores = MODEL.score(values, PROFILE)
    known = ~np.isnan(scores.score) & (scores.score > 0)
    np.testing.assert_allclose(scores.channels[known].sum(axis=1), 1)
    np.testing.assert_allclose(scores.parts[known].sum(axis=1), 1)
    assert scores.parts.shape[1] == len(PARTS)
    assert scores.channels[301].argmax() == 1 and scores.score[301] > PROFILE.threshold
    assert abs(scores.expected[300, 1] - scores.seen[300, 1]) > 5


def test_a_point_without_values_has_no_score_and_one_channel_is_enough():
    values = waves(200)
    values[150] = np.nan
    values[160, 0] = np.nan
    scores = MODEL.score(values, PROFILE)
    assert np.isnan(scores.score[150]) and np.isfinite(scores.score[[149, 151, 160]]).all()
    assert np.isnan(scores.score[: WINDOW - 1]).all() and scores.channels[160, 0] == 0


def test_after_a_long_gap_a_stream_warms_up_again():
    stream = MODEL.stream(PROFILE)
    stream.push(2.0 * np.arange(100), waves(100))
    later = stream.push(1e9 + 2.0 * np.arange(100), waves(100))
    assert np.isnan(later.score[:8]).all() and np.isfinite(later.score[40:]).all()


@pytest.mark.parametrize(
    ("times", "values", "told"),
    [
        ([1, 2], [[1, 2]], "send"),
        ([1], [[1, 2, 3]], "send"),
        ([1], [1.0], "send"),
        ([2, 1], [[1, 2], [1, 2]], "increase"),
        ([1, 1], [[1, 2], [1, 2]], "increase"),
        ([np.nan], [[1, 2]], "increase"),
        ([0], [[1, 2]], "increase"),
        ([1], [["x", 2]], "numbers"),
        ([1], [[1, 2], [3]], "numbers"),
    ],
)
def test_bad_points_are_refused_and_change_nothing(times, values, told):
    stream = MODEL.stream(PROFILE)
    stream.push([0.5], [[0, 0]])
    before = stream.state()
    with pytest.raises(InputError, match=told):
        stream.push(times, values)
    assert stream.state() == before


KEYS = st.sampled_from(["schema", "phase", "last", "buffer", "recent"])
FOREIGN = st.one_of(
    st.integers(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(KEYS, st.one_of(st.integers(), st.text(), st.none())),
)


@given(FOREIGN)
def test_a_foreign_state_is_refused(state):
    with pytest.raises(InputError, match="start afresh"):
        MODEL.stream(PROFILE, state)


def test_infinities_count_as_missing():
    values = waves(200)
    values[100] = [np.inf, -np.inf]
    assert np.isnan(MODEL.score(values, PROFILE).score[100])


GAPS = st.lists(st.tuples(st.integers(1, 149), st.sampled_from([1, 2, 5, 13, 20, 60, 75, 400])), max_size=6)


@given(st.integers(0, 3), GAPS, st.lists(st.integers(1, 149), max_size=6), st.sampled_from([0.0, 0.1]))
@settings(max_examples=60, deadline=None)
def test_a_gap_is_the_same_as_rows_of_missing_values(seed, gaps, cuts, missing):
    random, values = np.random.default_rng(seed), waves(150, seed)
    values[random.random(values.shape) < missing] = np.nan
    values[60:64] += 5  # errors that are remembered over a gap
    places = np.arange(150)
    for at, size in gaps:
        places[at:] += size
    whole = np.full((places[-1] + 1, 2), np.nan)
    whole[places] = values
    wanted, stream, found = MODEL.score(whole, PROFILE), MODEL.stream(PROFILE), []
    for start, stop in pairwise(sorted({0, 150, *cuts})):
        found.append(stream.push(2.0 * places[start:stop], values[start:stop]))
    for name in ("score", "severity", "channels", "parts", "expected"):
        joined = np.concatenate([getattr(piece, name) for piece in found])
        np.testing.assert_allclose(joined, getattr(wanted, name)[places], rtol=1e-9, atol=1e-9)
    state = MODEL.stream(PROFILE)
    state.push(2.0 * np.arange(len(whole)), whole)
    for name, kept in state.kept.items():
        np.testing.assert_allclose(stream.kept[name], kept, rtol=1e-9, atol=1e-9)
    assert stream.phase == state.phase


def test_points_that_each_follow_a_gap_cost_no_more_than_others():
    values, sizes = waves(BLOCK, channels=8), []
    profile = MODEL.fit(waves(500, channels=8))
    for step in (1.0, 50.0, 1e9):
        model = plain_detector()
        stream = model.stream(profile)
        tracemalloc.start()
        stream.push(step * np.arange(BLOCK), values)
        sizes.append((tracemalloc.get_traced_memory()[1], sum(model.session.calls)))
        tracemalloc.stop()
    assert max(peak for peak, _ in sizes) <= sizes[0][0] and sum(calls for _, calls in sizes[1:]) == 0


def test_scores_and_profiles_of_an_array_with_times_are_a_streams():
    values, places = waves(900), np.arange(900)
    places[500:] += 11
    times = 1e9 + 2.0 * places
    scores, stream = MODEL.score(values, PROFILE, times=times), MODEL.stream(PROFILE)
    same(scores, stream.push(times, values))
    assert (
        np.isnan(scores.score[500:504]).any() and np.isfinite(MODEL.score(values, PROFILE).score[500:]).all()
    )
    gappy = np.full((911, 2), np.nan)
    gappy[places] = values
    with_rows, with_times = MODEL.fit(gappy, step=2.0), MODEL.fit(values, times=times)
    assert with_times.step == 2.0 and with_times.ahead == pytest.approx(with_rows.ahead)
    assert MODEL.fit(values, step=2.0).ahead != pytest.approx(with_times.ahead)
    for wrong in (times[:-1], times[::-1], times * np.nan, ["soon"] * 900):
        with pytest.raises(InputError, match="times"):
            MODEL.fit(values, times=wrong)
    with pytest.raises(InputError, match="step"):
        MODEL.fit(values, step=0)


def test_a_channel_whose_values_are_all_before_what_a_fit_looks_at_is_refused(monkeypatch):
    monkeypatch.setattr("runtimes.fitting.POINTS", 400)
    values = waves(900)
    values[600:, 1] = np.nan
    with pytest.raises(InputError, match="channel 'b' has no value at all in the last 200 points"):
        MODEL.fit(values, ["a", "b"])


@pytest.mark.parametrize("every", [(1, 1, 1, 1), (1, 1, 4, 1, 9), (*[1] * 19, 40)])
def test_an_uneven_series_has_scores_too(every):
    times = 1e9 + 60.0 * np.cumsum(np.resize(every, 1_500))
    step = usual_step(times)
    assert step == 60 if max(every) == 1 else step > 60
    profile = MODEL.fit(waves(1_500), times=times)
    known = ~np.isnan(MODEL.score(waves(1_500), profile, times=times).score)
    assert profile.step == step and known.mean() > 0.8
    outage = np.concatenate([times, times + 1e7])
    assert step <= usual_step(outage) <= 1.6 * step  # and not the outage
