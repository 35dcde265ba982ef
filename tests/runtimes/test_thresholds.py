"""Thresholds: the tail against scipy's own fit, SPOT on a stream, quantiles, labels."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto

from runtimes.errors import InputError
from runtimes.thresholds import PEAKS, Spot, fit_pareto, labelled, pot, quantile, spot_from, spot_of


@pytest.mark.parametrize(("shape", "scale"), [(-0.2, 1.0), (0.0, 2.0), (0.15, 0.5), (0.4, 10.0)])
def test_a_tail_is_as_likely_as_the_one_that_scipy_finds(shape, scale):
    peaks = genpareto.rvs(shape, scale=scale, size=3000, random_state=1)
    found, width = fit_pareto(peaks)
    theirs, _, their_width = genpareto.fit(peaks, floc=0)
    ours = genpareto.logpdf(peaks, found, scale=width).mean()
    assert ours >= genpareto.logpdf(peaks, theirs, scale=their_width).mean() - 1e-4
    assert found == pytest.approx(shape, abs=0.06) and width == pytest.approx(scale, rel=0.08)


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_t"])
def test_a_pot_threshold_is_passed_about_as_often_as_was_asked(draw):
    random = np.random.default_rng(0)
    arguments = (4,) if draw == "standard_t" else ()
    scores = np.abs(getattr(random, draw)(*arguments, size=20_000))
    threshold = pot(scores).threshold(1e-3)
    passed = (np.abs(getattr(random, draw)(*arguments, size=400_000)) > threshold).mean()
    assert 0.5e-3 < passed < 2e-3


def test_probabilities_and_thresholds_are_each_others_inverse():
    tail = pot(np.random.default_rng(2).exponential(size=5000))
    for risk in (1e-2, 1e-4, 1e-6):
        assert tail.beyond(np.array([tail.threshold(risk)]))[0] == pytest.approx(risk, rel=1e-6)


@given(st.lists(st.floats(0, 1e9), min_size=20, max_size=200))
@settings(max_examples=60)
def test_any_scores_have_a_threshold_not_below_their_tail(scores):
    tail = pot(np.array(scores))
    rising = [tail.threshold(risk) for risk in (1e-1, 1e-2, 1e-3, 1e-5)]
    assert np.isfinite(rising).all() and rising == sorted(rising)
    assert rising[0] >= tail.start


def test_too_few_scores_are_refused():
    with pytest.raises(InputError, match="too few"):
        pot(np.array([1.0] * 10 + [np.nan] * 30))


def test_a_stream_of_normal_scores_moves_the_tail_and_an_anomaly_does_not():
    random = np.random.default_rng(3)
    spot = Spot(pot(random.exponential(size=1000)), risk=1e-4)
    spot, alarm = spot.update(1000.0)
    assert alarm and spot.tail.count == 1000
    before = spot.tail.threshold(1e-4)
    for score in random.exponential(2.0, size=6000):
        spot, _ = spot.update(float(score))
    assert spot.tail.threshold(1e-4) > before
    assert len(spot.peaks) <= PEAKS and spot.update(float("nan")) == (spot, False)


def test_a_quantile_and_its_refusals():
    assert quantile(np.arange(1001.0), 0.99) == 990
    with pytest.raises(InputError):
        quantile(np.array([np.nan]), 0.9)
    with pytest.raises(InputError):
        quantile(np.arange(9.0), 1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_labels_give_the_best_f1_of_all_thresholds(points):
    scores, labels = np.array([s for s, _ in points], float), np.array([y for _, y in points])
    if labels.all() or not labels.any():
        with pytest.raises(InputError):
            labelled(scores, labels)
        return

    def f1(threshold):
        said = scores >= threshold
        return 2 * (said & labels).sum() / (said.sum() + labels.sum())

    assert f1(labelled(scores, labels)) == pytest.approx(max(f1(level) for level in scores))


def test_a_tail_lighter_than_allowed_is_exponential():
    """The likeliest shape within is then 0, at which the exponential is the likelier one."""
    peaks = np.random.default_rng(0).uniform(size=2000)
    assert fit_pareto(peaks, (0.0, 0.25)) == (0.0, pytest.approx(peaks.mean()))


def test_a_streams_threshold_begins_at_its_fit_and_goes_on_after_a_restart():
    random = np.random.default_rng(5)
    tail = pot(random.exponential(size=4000), shapes=(0.0, 0.25))
    whole = part = spot_of(tail, (0.0, 0.25))
    assert whole.tail.threshold(whole.risk) == tail.threshold(whole.risk)
    assert fit_pareto(np.array(whole.peaks))[1] == pytest.approx(tail.scale, rel=0.1)
    for score in random.exponential(size=500):
        whole, said = whole.update(float(score))
        part = spot_from(json.loads(json.dumps(part.state())))
        part, again = part.update(float(score))
        assert (part, again) == (whole, said)
    assert whole.tail.threshold(1e-4) == pytest.approx(tail.threshold(1e-4), rel=0.2)


KEYS = ("tail", "risk", "peaks", "within", "start", "shape", "scale", "share", "count")
LEAVES = st.none() | st.floats() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner)))
@settings(max_examples=60)
def test_a_foreign_state_of_a_threshold_is_refused(state):
    with pytest.raises(InputError, match="start afresh"):
        spot_from(state)
