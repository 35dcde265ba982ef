"""Alarms: what opens, what closes, what is merged and what is told once."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.alarms import AlarmRules, Alarms
from runtimes.errors import InputError
from runtimes.profile import PARTS
from runtimes.stream import Scores


def scored(values):
    values = np.array(values, float)
    n = len(values)
    return Scores(
        values, np.clip(values / 10, 0, 1), np.full((n, 2), 0.5), np.full((n, len(PARTS)), 1 / len(PARTS)),
        np.zeros((n, 2)), np.stack([values, np.full(n, np.nan)], axis=1),
    )  # fmt: skip


def told(values, rules, times=None):
    alarms = Alarms(rules)
    times = np.arange(len(values)) if times is None else times
    return [(e.kind, e.start, e.end) for e in alarms.push(times, scored(values), 1.0)]


EAGER = AlarmRules(min_points=1, cool_down_s=0, merge_gap_s=0)


@pytest.mark.parametrize(
    ("rules", "values", "wanted"),
    [
        (EAGER, [0, 2, 2, 0, 0], [("opened", 1, 1), ("closed", 1, 2)]),
        (AlarmRules(3, 0, 0), [0, 2, 2, 0, 2, 2, 2], [("opened", 4, 6)]),
        (AlarmRules(2, 0, 2), [2, 2, 0, 2, 0, 0, 0], [("opened", 0, 1), ("closed", 0, 3)]),
        (AlarmRules(2, 0, 9), [2, 0, 2, 0, 2, 2], [("opened", 4, 5)]),
        (AlarmRules(2, 0, 9), [2, np.nan, 2], [("opened", 0, 2)]),
        (AlarmRules(1, 0, 2), [2, 0, 0, 2, 0], [("opened", 0, 0), ("closed", 0, 0), ("opened", 3, 3)]),
        (AlarmRules(1, 4, 0), [2, 0, 2, 0, 0, 2], [("opened", 0, 0), ("closed", 0, 0), ("opened", 5, 5)]),
        (AlarmRules(1, 3, 0), [2, 0, 2, 2, 2], [("opened", 0, 0), ("closed", 0, 0), ("opened", 2, 3)]),
        (EAGER, [np.nan, 2, np.nan, 2, 0], [("opened", 1, 1), ("closed", 1, 3)]),
    ],
    ids=[
        "plain",
        "least length",
        "merged",
        "lone points",
        "in a row with one missing",
        "too far to merge",
        "cool-down",
        "outlasts it",
        "missing",
    ],
)
def test_rules(rules, values, wanted):
    found = told(values, rules)
    assert found[: len(wanted)] == wanted and len(found) == len(wanted)


def test_an_alarm_tells_of_its_highest_point():
    _, closed = Alarms(EAGER).push([1, 2, 3, 4], scored([2, 9, 3, 0]), 1.0)
    assert (closed.peak, closed.peak_time, closed.severity) == (9, 2, 0.9)
    assert closed.seen == [9, None] and closed.expected == [0, 0]
    assert set(closed.parts) == set(PARTS) and json.loads(json.dumps(closed.to_json()))


STREAM = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0, np.nan]), min_size=1, max_size=60)
RULES = st.builds(
    AlarmRules, min_points=st.integers(1, 4), cool_down_s=st.integers(0, 8), merge_gap_s=st.integers(0, 4)
)


@given(STREAM, RULES, st.lists(st.integers(0, 60)))
def test_alarms_alternate_and_restarts_change_nothing(values, rules, cuts):
    whole = [e.to_json() for e in Alarms(rules).push(np.arange(len(values)), scored(values), 1.0)]
    kinds = [event["kind"] for event in whole]
    assert kinds == (["opened", "closed"] * len(kinds))[: len(kinds)]
    assert len({event["id"] for event in whole}) == kinds.count("opened")
    closed = [event for event in whole if event["kind"] == "closed"]
    for one, opened in zip(closed, [e for e in whole if e["kind"] == "opened"][1:], strict=False):
        assert opened["end"] - one["end"] >= max(rules.cool_down_s, rules.merge_gap_s)

    alarms, pieces = Alarms(rules), []
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    for start, stop in pairwise(edges):
        alarms = Alarms(rules, json.loads(json.dumps(alarms.state())))
        again = max(start - 5, 0)  # what was pushed before the restart comes once more
        pieces += alarms.push(np.arange(again, stop), scored(values[again:stop]), 1.0)
    assert [event.to_json() for event in pieces] == whole


@pytest.mark.parametrize(
    "state",
    [
        {},
        [],
        {"schema": 2},
        {"schema": 1, "last": "x"},
        {"schema": 1, "last": 1, "quiet": 2, "told": 0, "run": {"points": 1}},
    ],
)
def test_a_foreign_state_is_refused(state):
    with pytest.raises(InputError, match="state of alarms"):
        Alarms(EAGER, state)


@pytest.mark.parametrize("broken", [{"min_points": 0}, {"cool_down_s": -1}, {"merge_gap_s": float("inf")}])
def test_rules_that_cannot_be(broken):
    with pytest.raises(InputError, match="alarm rules"):
        AlarmRules(**broken)


def test_each_point_can_have_a_threshold_of_its_own():
    events = Alarms(EAGER).push([1, 2, 3], scored([2, 2, 2]), np.array([3.0, 1.0, 3.0]))
    assert [(event.kind, event.end) for event in events] == [("opened", 2), ("closed", 2)]
