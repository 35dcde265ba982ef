from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apps.language.align.intervals import Interval, bootstrap, holm, permutation_p
from runtimes.errors import InputError

shares = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 30)), elements=st.floats(0, 1))


@settings(max_examples=30, deadline=None)
@given(shares)
def test_an_interval_holds_its_figure_and_lies_within_the_data(values):
    found = bootstrap(values, resamples=100)
    assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9
    assert found.value == pytest.approx(values.mean())


def test_the_interval_of_a_mean_is_that_of_theory_where_prompts_alone_vary():
    values = np.random.default_rng(0).normal(0, 1, 400)
    found = bootstrap(np.stack([values, values, values]))
    half = 1.96 * values.std() / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_seeds_that_differ_widen_the_interval():
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    alike, apart = bootstrap(np.repeat(values, 3, 0)), bootstrap(values + np.array([[-1.0], [0], [1]]))
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [bootstrap(rng.normal(0, 1, (1, 60)), resamples=200, seed=i) for i in range(200)]
    covered = sum(not one.excludes(0) for one in found) / 200
    assert 0.88 <= covered <= 0.99


def test_only_an_interval_on_one_side_excludes():
    assert Interval(0.6, 0.51, 0.7).excludes(0.5)
    assert Interval(0.4, 0.3, 0.49).excludes(0.5)
    assert not Interval(0.6, 0.49, 0.7).excludes(0.5)


@pytest.mark.parametrize(
    ("bad", "words"),
    [([[float("nan")]], "not finite"), ([], "one shape"), ([[]], "one shape"), ([1.0], "one shape")],
)
def test_figures_that_are_none_are_refused(bad, words):
    with pytest.raises(InputError, match=words):
        bootstrap(np.array(bad, np.float64))


def test_p_of_a_case_that_can_be_counted():
    # Of the 8 ways to give signs to 1, 2, 3, two have a sum as far from 0 as 6.
    assert permutation_p(np.array([[1.0, 2, 3]]), np.zeros((1, 3))) == pytest.approx(2 / 8, abs=0.02)


def test_p_is_even_where_nothing_differs_and_small_where_much_does():
    rng = np.random.default_rng(0)
    same = [permutation_p(*rng.normal(0, 1, (2, 3, 40)), flips=400, seed=i) for i in range(200)]
    assert np.mean(np.array(same) < 0.2) == pytest.approx(0.2, abs=0.09)
    assert permutation_p(rng.normal(1, 1, (3, 40)), rng.normal(0, 1, (3, 40))) < 0.001
    assert permutation_p(np.ones((1, 5)), np.ones((1, 5))) == 1.0


def test_holm_as_in_his_own_words():
    # Holm (1979): the smallest times n, the next times n - 1, and never below one before it.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_keeps_the_order_and_stays_below_bonferroni(ps):
    found = holm(ps)
    assert list(found) == list(ps)
    for name, p in ps.items():
        assert p <= found[name] <= min(1.0, p * len(ps)) + 1e-12
    ordered = sorted(ps, key=lambda name: ps[name])
    assert all(found[a] <= found[b] for a, b in pairwise(ordered))
