import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.language.align.diversity import distinct, repetition
from apps.language.align.judging import at_equal_length, duel, duels, scores_judge

scores = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=40)


@given(scores, st.floats(0, 1), st.integers(0, 5))
def test_what_one_side_wins_the_other_loses(pairs, tie, seed):
    ours, theirs = np.array(pairs).T
    judge = scores_judge(tie)
    shares, turned = duel(judge, ours, theirs, seed), duel(judge, theirs, ours, seed + 1)
    assert np.allclose(shares + turned, 1)
    assert np.array_equal(shares == 0.5, np.abs(ours - theirs) <= tie)


def test_a_judge_that_always_takes_the_first_favours_no_one():
    shares = duel(lambda prompt, first, second: 1.0, np.zeros(4000), np.ones(4000))
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert set(shares) == {0.0, 1.0}


@given(scores, st.floats(0, 1))
def test_the_drawn_order_is_nothing_to_a_judge_of_scores(pairs, tie):
    ours, theirs = np.array(pairs).T
    first, *others = [duel(scores_judge(tie), ours, theirs, seed) for seed in range(4)]
    assert all(np.array_equal(first, other) for other in others)


def test_seeds_are_judged_apart():
    found = duels(scores_judge(0), np.array([[1.0, 1], [0, 0]]), np.array([[0.0, 0], [1, 0]]))
    assert found.tolist() == [[1, 1], [0, 0.5]]


def test_a_win_by_length_alone_is_gone_at_equal_length():
    rng = np.random.default_rng(0)
    longer = rng.normal(15, 10, 4000)  # ours are longer, mostly
    chance = 1 / (1 + np.exp(-2.0 * np.tanh(longer / longer.std())))
    shares = (rng.random(4000) < chance).astype(float)
    assert shares.mean() > 0.75
    assert at_equal_length(shares, longer) == pytest.approx(0.5, abs=0.05)


def test_a_win_that_length_does_not_explain_stays():
    rng = np.random.default_rng(0)
    shares = (rng.random(4000) < 0.7).astype(float)
    assert at_equal_length(shares, rng.normal(0, 10, 4000)) == pytest.approx(0.7, abs=0.03)
    assert at_equal_length(shares, np.zeros(4000)) == pytest.approx(shares.mean(), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-50, 50)), min_size=1, max_size=40))
def test_the_regression_always_gives_a_share(rows):
    shares, longer = np.array(rows, float).T
    assert 0 <= at_equal_length(shares, longer) <= 1


def test_all_won_is_all_won():
    assert at_equal_length(np.ones(50), np.arange(50.0)) > 0.99


def test_how_varied_and_how_repetitive_answers_are():
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)  # ab, ba, ab; ab
    assert distinct([""], 2) == 0
    assert repetition(["a b c d a b c d"]) == pytest.approx(1 / 5)
    assert repetition(["x x x x x x", "a b c"]) == pytest.approx((2 / 3) / 2)
