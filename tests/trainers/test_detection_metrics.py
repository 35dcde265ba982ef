"""The measures beside plain, slow readings of their definitions."""

import math
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.detection_metrics import (
    best_f1,
    bootstrap,
    detection_delays,
    event_rates,
    false_alarms_a_day,
    measure,
    point_rates,
    soft_labels,
    vus,
)
from trainers.series import events


def slow_labels(labels: list[bool], length: int) -> list[float]:
    soft = [float(label) for label in labels]
    for i in np.flatnonzero(labels):
        if i == 0 or not labels[i - 1]:  # an event starts
            for d in range(1, min(length // 2, i) + 1):
                soft[i - d] += math.sqrt(1 - d / length)
        if i == len(labels) - 1 or not labels[i + 1]:  # an event ends
            for d in range(1, min(length // 2, len(labels) - i)):
                soft[i + d] += math.sqrt(1 - d / length)
    return [min(1.0, value) for value in soft]


def slow_areas(labels: list[bool], scores: list[float], length: int) -> tuple[float, float]:
    soft, n = slow_labels(labels, length), len(labels)
    runs = [list(run) for inside, run in groupby(range(n), key=lambda i: soft[i] > 0) if inside]
    positives = (sum(labels) + sum(soft)) / 2
    recall, fall_out, pr, roc = 0.0, 0.0, 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [i for i in range(n) if scores[i] >= threshold]
        hits = sum(soft[i] for i in taken)
        touched = sum(any(scores[i] >= threshold for i in run) for run in runs) / len(runs)
        new_recall = min(hits / positives, 1) * touched
        new_fall_out = min((len(taken) - hits) / (n - positives), 1)
        pr += (new_recall - recall) * hits / len(taken)
        roc += (new_fall_out - fall_out) * (new_recall + recall) / 2
        recall, fall_out = new_recall, new_fall_out
    return pr, roc + (1 - fall_out) * (1 + recall) / 2


def slow_vus(labels: list[bool], scores: list[float], buffer: int) -> tuple[float, float]:
    """The definition of Paparrizos et al. 2022 in loops, with every distinct score as a threshold."""
    areas = [slow_areas(labels, scores, length) for length in range(buffer + 1)]
    return sum(pr for pr, _ in areas) / len(areas), sum(roc for _, roc in areas) / len(areas)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30),
    buffer=st.integers(0, 14),
)
def test_vus_is_its_definition(rows: list[tuple[bool, int]], buffer: int) -> None:
    labels, scores = [label for label, _ in rows], [score / 7 for _, score in rows]
    if not any(labels) or all(labels):
        return
    assert vus(np.array(labels), np.array(scores), buffer) == pytest.approx(slow_vus(labels, scores, buffer))


def test_vus_of_long_noise_is_its_definition() -> None:
    generator = np.random.default_rng(3)
    labels = np.zeros(300, bool)
    labels[[20, 21, 22, 90, 91, 200, 299]] = True
    scores = generator.normal(size=300) + labels
    assert vus(labels, scores, 20) == pytest.approx(slow_vus(list(labels), list(scores), 20))


def test_vus_knows_perfect_random_and_constant_scores() -> None:
    labels = np.zeros(4000, bool)
    labels[1000:1200] = labels[3000:3200] = True
    soft = soft_labels(labels, 100)
    assert vus(labels, labels.astype(float), 0)[0] == pytest.approx(1)
    assert vus(labels, soft)[0] > 0.95
    noise = vus(labels, np.random.default_rng(0).normal(size=4000))[0]
    assert 0.08 < noise < 0.2
    assert vus(labels, np.zeros(4000))[0] == pytest.approx(noise, abs=0.05)  # ties gain nothing
    near = np.roll(labels, 20).astype(float)  # 20 points late costs little, 300 points late costs all
    far = np.roll(labels, 300).astype(float)
    assert vus(labels, near)[0] > 0.8
    assert vus(labels, far)[0] < 0.3


def test_scores_that_are_missing_rank_below_all_others_and_are_no_alarms() -> None:
    labels, scores = np.array([0, 0, 1, 1, 0], bool), np.array([np.nan, 0.1, 0.9, 0.8, 0.2])
    assert vus(labels, scores, 2) == vus(labels, np.nan_to_num(scores, nan=-5.0), 2)
    high = np.array([np.nan, 7.0, 9.0, 9.0, 7.0])
    row = measure(labels, high, 5.0, step=86400 / 3)
    assert (row["point_precision"], row["false_alarms_a_day"]) == (0.5, 0)  # one run, which touches the event
    assert best_f1(np.array([1, 1, 0], bool), np.array([np.nan, 0.2, 0.9]))[0] == 0.5  # 0.8 if all were taken
    assert best_f1(labels, np.full(5, np.nan)) == (0.0, np.inf)


def test_an_alarm_is_a_score_at_the_threshold_as_in_the_service() -> None:
    labels, scores = np.array([0, 0, 1, 1, 0], bool), np.array([0.0, 0.0, 3.0, 1.0, 0.0])
    row = measure(labels, scores, 3.0, step=60)
    assert (row["found"], row["point_recall"], row["delay_points"]) == (1, 0.5, 0)


def test_an_alarm_from_before_an_event_finds_it_without_a_delay() -> None:
    labels = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 0], bool)
    scores = np.array([0, 5, 5, 5, 5, 0, 0, 0, 5, 0], float)
    row = measure(labels, scores, 5.0, step=60)
    assert (row["found"], row["event_recall"], row["delay_points"]) == (2, 1.0, 2)
    assert np.isnan(detection_delays(labels, scores >= 5)[0])


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 0], [1.0, 2.0], "one kind"),
        ([1, 1], [1.0, 2.0], "one kind"),
        ([0, 1], [1.0], "one of each"),
        ([], [], "one of each"),
        ([0, 1], [np.inf, 0.0], "infinite"),
    ],
)
def test_what_cannot_be_measured_is_one_line(labels: list, scores: list, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        vus(np.array(labels, bool), np.array(scores))
    assert "\n" not in str(caught.value)


def test_points_and_events_are_counted_apart() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 0, 0, 1, 1], bool)
    alarms = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 0], bool)
    points, whole = point_rates(labels, alarms), event_rates(labels, alarms)
    assert (points.precision, points.recall) == (2 / 4, 2 / 6)
    assert (whole.precision, whole.recall, whole.f1) == (2 / 4, 1 / 2, 0.5)
    assert detection_delays(labels, alarms)[0] == 1
    assert np.isnan(detection_delays(labels, alarms)[1])
    assert false_alarms_a_day(labels, alarms, step=86400 / 4) == 2  # two wrong runs on four normal points
    nothing = event_rates(labels, np.zeros(10, bool))
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_one_lucky_point_is_not_a_whole_event() -> None:
    """What point adjustment would call perfect recall stays a twentieth."""
    labels = np.zeros(100, bool)
    labels[40:60] = True
    alarms = np.zeros(100, bool)
    alarms[50] = True
    assert point_rates(labels, alarms).recall == pytest.approx(1 / 20)


def test_a_row_has_all_measures_or_says_none() -> None:
    generator = np.random.default_rng(0)
    labels = np.zeros(500, bool)
    labels[200:220] = True
    row = measure(labels, generator.normal(size=500) + 4 * labels, 3.0, step=60)
    assert row["vus_pr"] > 0.5
    assert row["auc_roc"] > 0.9
    assert row["delay_s"] == row["delay_points"] * 60
    calm = measure(np.zeros(500, bool), generator.normal(size=500), 9.0, step=60)
    assert (calm["vus_pr"], calm["event_f1"], calm["delay_s"]) == (None, None, None)
    assert calm["false_alarms_a_day"] == 0


@given(st.lists(st.booleans(), max_size=60))
def test_events_are_the_runs(marks: list[bool]) -> None:
    labels = np.array(marks, bool)
    again = np.zeros(len(labels), bool)
    found = events(labels)
    for start, end in found:
        again[start:end] = True
    assert (again == labels).all()
    assert all(end < start for (_, end), (start, _) in pairwise(found))


def test_the_interval_covers_the_mean() -> None:
    values = np.random.default_rng(1).uniform(size=40)
    low, high = bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.15)
