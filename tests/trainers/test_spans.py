"""SQuAD's figures: worked cases, and what must always hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import InputError
from runtimes.spans import exact_match, f1, normalise
from trainers.spans import best_threshold, calibrate, span_report


@pytest.mark.parametrize(
    ("text", "plain"),
    [("The  Cat, sat.", "cat sat"), ("an A the", ""), ("Theory", "theory"), ("A.B.C", "abc"), ("", "")],
)
def test_normalise(text, plain):
    assert normalise(text) == plain


def test_worked_cases():
    assert exact_match("the Virgin Mary", ["Virgin Mary."]) == 1
    assert exact_match("Mary", ["Virgin Mary"]) == 0
    assert f1("Mary", ["Virgin Mary"]) == pytest.approx(2 / 3)
    assert f1("blue blue red", ["blue red red"]) == pytest.approx(2 / 3)  # words count as often as they stand
    assert f1("x", ["y", "x z", "x"]) == 1  # the best of all right answers
    assert (exact_match("", []), f1("", [])) == (1, 1) and (exact_match("x", []), f1("x", [])) == (0, 0)
    assert f1("", ["x"]) == 0 and f1("the", ["x"]) == 0


def test_report_tells_both_kinds_apart():
    report = span_report(["a b", "", "c"], [["b"], [], []])
    assert (report["n"], report["exact_match"]) == (3, pytest.approx(2 / 3))
    assert report["answerable"] == {"n": 1, "exact_match": 1, "f1": 1}
    assert report["unanswerable"] == {"n": 2, "exact_match": 0.5, "f1": 0.5}
    low, high = report["f1_ci95"]
    assert low <= report["f1"] <= high
    assert span_report([], [])["f1"] is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=1))
def test_no_threshold_is_better(rows):
    leads, right, none = (list(column) for column in zip(*rows, strict=True))
    right = [0.0 if impossible else value for value, impossible in zip(right, none, strict=True)]

    def mean(threshold):
        return np.mean([(value if lead >= threshold else float(impossible))
                        for lead, value, impossible in zip(leads, right, none, strict=True)])  # fmt: skip

    found = best_threshold(leads, right, none)
    assert mean(found) == pytest.approx(max(mean(one) for one in [*leads, math.inf]))


def test_calibration_gives_the_share_that_is_right():
    random = np.random.default_rng(0)
    leads = random.normal(3, 5, 4_000)
    right = random.random(4_000) < 1 / (1 + np.exp(-(0.4 * leads - 1)))
    found = calibrate(leads, right)
    assert found["scale"] == pytest.approx(0.4, abs=0.04) and found["shift"] == pytest.approx(-1, abs=0.15)
    with pytest.raises(InputError, match="all right or all wrong"):
        calibrate([1, 2], [True, True])
