"""One series watched: what is learned, kept in a state, refused; drift and thresholds of a stream."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from plain_detector import plain_detector

from apps.monitor import machine, watch
from apps.monitor.lines import Batch
from apps.monitor.watch import Watch
from runtimes.drift import DriftEvent
from runtimes.errors import InputError

MODEL = plain_detector()
LEARN = 400


def batch(first, values):
    values = np.asarray(values, float)
    names = tuple(f"c{number}" for number in range(values.shape[1]))
    return Batch(names, 1e9 + 2.0 * np.arange(first, first + len(values)), values)


def waves(count, start=0):
    places = np.arange(start, start + count)
    clean = np.stack([np.sin(places / 5), 2 * np.sin(places / 8)], axis=1)
    return clean + np.random.default_rng(start).normal(0, 0.1, clean.shape)


def saved(path, values, first=0, **more):
    one = Watch(MODEL, LEARN, path, **more)
    told = one.push(batch(first, values))
    one.save(now=True)
    return one, told


def test_a_state_of_another_model_is_refused(tmp_path):
    for count in (50, LEARN + 50):
        path = tmp_path / f"{count}.json"
        saved(path, waves(count), identity="a")
        assert Watch(MODEL, LEARN, path, identity="a").seen == count
        with pytest.raises(InputError, match="of another model"):
            Watch(MODEL, LEARN, path, identity="b")


def test_no_more_is_learned_than_a_state_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "POINTS", 1_000)
    with pytest.raises(InputError, match="of 2 channels give at most 500 points"):
        Watch(MODEL, 501).push(batch(0, waves(1)))
    saved(tmp_path / "state", waves(10))
    with pytest.raises(InputError, match="give at most 500 points"):
        Watch(MODEL, 501, tmp_path / "state")
    # The largest one that may be learned from is read again.
    assert 11 * watch.MAX_LEARN < watch.MAX_STATE_BYTES // 2


def test_a_restart_while_it_learns_changes_nothing(tmp_path):
    values = waves(600)
    values[100, 0] = np.nan
    _, (_, wanted, _) = saved(tmp_path / "whole", values)
    for first, last in ((0, 101), (101, 350)):
        saved(tmp_path / "parts", values[first:last], first)
    _, (_, found, _) = saved(tmp_path / "parts", values[350:], 350)
    np.testing.assert_array_equal(found.score, wanted.score)


def test_fewer_points_to_learn_than_the_state_already_has(tmp_path):
    saved(tmp_path / "state", waves(300))
    one = Watch(MODEL, 100, tmp_path / "state")
    times, scores, _ = one.push(batch(300, waves(20, 300)))
    assert one.profile.points == 300 and len(times) == len(scores.score) == 20


def test_drift_is_told_once_and_kept_in_the_state(tmp_path):
    calm, moved = waves(4_000), waves(3_000, 4_000) * 3 + 5
    whole, (_, _, events) = saved(tmp_path / "whole", np.concatenate([calm, moved]))
    told = [event for event in events if isinstance(event, DriftEvent)]
    assert len(told) == 1 and told[0].time > 1e9 + 2 * 4_000 and whole.drift.drifted
    saved(tmp_path / "parts", calm)
    _, (_, _, events) = saved(tmp_path / "parts", moved, 4_000)
    assert [event for event in events if isinstance(event, DriftEvent)] == told
    _, (_, _, events) = saved(tmp_path / "parts", moved, 7_000)
    assert not [event for event in events if isinstance(event, DriftEvent)]


def test_a_threshold_can_move_on_with_the_stream(tmp_path):
    values = waves(3_000)
    values[LEARN:] += np.random.default_rng(9).normal(0, 0.3, (2_600, 2))  # busier than it was
    one, _ = saved(tmp_path / "whole", values, threshold="spot")
    assert one.spot.tail.threshold(one.spot.risk) > 1.05 * one.profile.threshold
    saved(tmp_path / "parts", values[:1_500], threshold="spot")
    again, _ = saved(tmp_path / "parts", values[1_500:], 1_500)  # the state's own
    assert again.spot.tail.threshold(1e-4) == pytest.approx(one.spot.tail.threshold(1e-4), rel=1e-9)
    fixed, _ = saved(tmp_path / "fixed", values)
    assert fixed.alarms.state()["run"]["open"]  # of the noise, without an end
    assert one.alarms.state()["run"] is None
    _, (_, scores, events) = saved(tmp_path / "whole", waves(50, 3_000) + 9, 3_000)
    assert one.spot.tail.threshold(1e-4) < 1.5 * np.nanmax(scores.score)
    assert [event.kind for event in events] == ["opened"]  # still not blind


def test_another_threshold_after_a_restart(tmp_path):
    path = tmp_path / "state"
    one, _ = saved(path, waves(500))
    assert Watch(MODEL, LEARN, path, 7.0).profile.threshold == 7.0
    saved(path, waves(1, 500), 500, threshold=7.0)
    assert Watch(MODEL, LEARN, path).profile.chosen == "given"
    assert Watch(MODEL, LEARN, path, "pot").profile.threshold == one.profile.threshold
    assert Watch(MODEL, LEARN, path, "spot").spot is not None
    with pytest.raises(InputError, match="quantile"):
        Watch(MODEL, LEARN, path, "quantile")


def test_alarms_of_an_uneven_series_go_by_its_usual_pace(tmp_path):
    values, steps = waves(450), np.resize([60, 60, 60, 6_000], 450)
    one = Watch(MODEL, LEARN, tmp_path / "state")
    one.push(Batch(("a", "b"), 1e9 + np.cumsum(steps), values))
    one.save(now=True)
    assert one.profile.step > 600 and one.alarms.rules.cool_down_s == 600
    assert Watch(MODEL, LEARN, tmp_path / "state").alarms.rules == one.alarms.rules


class Counters:
    """A machine that reads 10 MB a second from its disk, with clocks to turn."""

    def __init__(self):
        self.now, self.wall, self.slept = 100.0, 1e9, []

    def cpu_percent(self):
        return 5.0

    def virtual_memory(self):
        return SimpleNamespace(percent=50.0)

    def disk_io_counters(self):
        return SimpleNamespace(read_bytes=1e7 * self.now, write_bytes=0)

    def net_io_counters(self):
        return None

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now, self.wall = self.now + seconds, self.wall + seconds


def test_a_machine_that_stalled_gives_one_point_and_true_rates(monkeypatch):
    fake = Counters()
    monkeypatch.setitem(__import__("sys").modules, "psutil", fake)
    points = machine.machine_batches(1.0, lambda: fake.wall, fake.sleep, lambda: fake.now)
    found = [next(points) for _ in range(2)]
    fake.now, fake.wall = fake.now + 60, fake.wall + 60
    found += [next(points) for _ in range(3)]
    fake.wall -= 3_600  # someone sets the clock back
    found += [next(points) for _ in range(2)]
    assert np.diff([one.times[0] for one in found]) == pytest.approx([1, 60, 1, 1, 1 - 3_600, 1])
    assert [one.values[0, 2] for one in found] == pytest.approx([10.0] * 7)
    assert max(fake.slept) <= 1.0 and json.dumps(found[0].values[0, 3].item()) == "0.0"
