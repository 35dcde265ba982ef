"""The threshold of a series: tried on the past, set, found from labels, learned anew by a refit."""

import sqlite3
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from monitor_client import START, learned, line_of, send, spiked, wait_for
from tiny_detector import WARM_UP, waves

from apps.monitor import refitting
from apps.monitor.scoring import Scorer


def test_a_threshold_is_tried_on_the_past_and_set(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", np.concatenate([spiked(300, 50, count), spiked(300, 50, count + 300)]), count)
    learned_one = client.get("/series/a/threshold").json()["learned"]
    low, high = (
        client.get("/series/a/threshold/preview", params={"threshold": value}).json()
        for value in (learned_one, 1e5)
    )
    assert low["alarms"] == low["now"]["alarms"] == len(low["periods"]) >= 1 and high["alarms"] == 0
    told = len(client.get("/alarms").json()["alarms"])
    assert low["alarms"] == told  # the preview is what really happened
    assert client.put("/series/a/threshold", json={"threshold": 1e5}).json()["threshold"] == 1e5
    send(client, "a", spiked(1500, 1400, count + 600), count + 600)
    assert len(client.get("/alarms").json()["alarms"]) == told
    assert client.put("/series/a/threshold", json={"threshold": None}).json()["threshold"] == learned_one
    kinds = [line["kind"] for line in client.get("/series/a/log").json()["log"]]
    assert kinds == ["threshold", "threshold", "learned"]


def test_a_refit_is_taken_only_where_it_is_better(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", waves(2700, start=count), count)
    told = client.post("/series/a/refit", json={}).json()
    assert told["kept"] == "old" and told["why"], told
    before = client.put("/series/a/threshold", json={"threshold": 1e5}).json()["learned"]
    send(client, "a", waves(4200, start=count + 2700) * 3 + 50, count + 2700)  # and no alarm hides it
    assert client.get("/series/a").json()["drifted"]
    told = client.post("/series/a/refit", json={}).json()
    assert told["kept"] == "new" and told["new"]["alarmed"] < told["old"]["alarmed"], told
    about = client.get("/series/a").json()
    assert about["threshold"] == told["new_threshold"] != before and not about["drifted"]
    kinds = [line["kind"] for line in client.get("/series/a/log").json()["log"]]
    assert kinds == ["refit", "drift", "threshold", "refit", "learned"]
    send(client, "a", waves(50, start=count + 6900) * 3 + 50, count + 6900)
    assert client.get("/series/a").json()["state"] == "normal"


def test_a_refit_needs_neither_body_nor_type(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", waves(2700, start=count), count)
    reply = client.post("/series/a/refit")
    assert "content-type" not in reply.request.headers and reply.status_code == 200, reply.text
    assert reply.json()["kept"] == "old"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert "must be JSON" in line_of(client.post("/series/a/refit", content=b"a=1", headers=form), 415)


def test_a_refit_during_an_alarm_does_not_learn_from_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, seen = learned(client), []
    send(client, "a", waves(2600, start=count), count)
    send(client, "a", waves(300, start=count + 2600) + 30, count + 2600)
    (alarm,) = client.get("/alarms", params={"state": "open"}).json()["alarms"]

    def judge(*what: Any, **more: Any) -> Any:
        seen.append(more["exclude"])
        return really(*what, **more)

    really = refitting.judge
    monkeypatch.setattr(refitting, "judge", judge)
    client.post("/series/a/refit")
    (excluded,) = seen
    first = int(alarm["start"] - START)
    assert excluded[first:].all() and not excluded[:first].any() and len(excluded) - first > 250


def test_a_series_that_changed_for_good_under_an_alarm_is_learned_when_told_so(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", waves(4200, start=count) * 3 + 50, count)
    assert client.get("/series/a").json()["state"] == "alarm"
    assert '{"alarmed": true}' in line_of(client.post("/series/a/refit"), 422)
    assert client.post("/series/a/refit", json={"alarmed": True}).json()["kept"] == "new"
    assert line_of(client.post("/series/a/refit", json={"alarmed": "yes"}), 422)


def full_disk(scorer: Scorer) -> None:
    """Every transaction fails at its end, as on a full disk."""
    real = scorer.file

    class Full:
        def execute(self, query: str, *values: Any) -> Any:
            if query == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return real.execute(query, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    scorer.file = Full()  # type: ignore[assignment]


def test_what_could_not_be_written_is_not_in_use(client: Any) -> None:
    count = learned(client)
    send(client, "a", waves(2700, start=count), count)
    send(client, "a", waves(4200, start=count + 2700) * 3 + 50, count + 2700)
    client.put("/series/a/threshold", json={"threshold": 3.0})
    scorer = client.app.state.service.scorer
    file, before = scorer.file, client.get("/series/a").json()
    live = scorer.series["a"]
    profile = live.profile.to_json()
    path = client.app.state.service.path
    found = refitting.judged(path, scorer.model, live, live.profile, with_alarms=True)
    taken = refitting.Refit("new", found.model, found.profile, found.row | {"kept": "new"})
    full_disk(scorer)
    with pytest.raises(sqlite3.OperationalError):
        refitting.adopt(scorer, "a", live.profile, taken, "test")
    scorer.file = file
    assert client.get("/series/a").json() == before and before["threshold"] == 3.0
    assert scorer.series["a"].profile.to_json() == profile != taken.profile.to_json()
    send(client, "a", waves(50, start=count + 6900), count + 6900)  # and it goes on
    assert client.get("/series/a").json()["score"] is not None


def test_a_series_that_could_not_be_written_as_learned_learns_later(client: Any) -> None:
    send(client, "a", waves(WARM_UP - 1))
    scorer = client.app.state.service.scorer
    learn, commits = scorer._learn, []

    def fail(live: Any) -> None:
        learn(live)
        if not commits:
            commits.append(live.profile)
            raise sqlite3.OperationalError("database or disk is full")

    scorer._learn = fail
    send(client, "a", waves(1, start=WARM_UP - 1), WARM_UP - 1)
    wait_for(lambda: commits)
    wait_for(lambda: scorer.series["a"].profile is None)  # as the file says
    send(client, "a", waves(1, start=WARM_UP), WARM_UP)
    wait_for(lambda: client.get("/series/a").json()["learned"])
    assert [line["kind"] for line in client.get("/series/a/log").json()["log"]] == ["learned"]


def test_known_anomalies_set_the_threshold(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", np.concatenate([spiked(300, 50, count), spiked(300, 50, count + 300)]), count)
    columns = client.get("/series/a/points", params={"limit": 5000}).json()
    windows = [[START + count + at, START + count + at + 8] for at in (50, 350)]
    told = client.put("/series/a/threshold", json={"method": "labelled", "windows": windows}).json()
    assert told["threshold"] == told["chosen"] != told["learned"]
    scores, times = np.array(columns["scores"], float), np.array(columns["times"])
    inside = np.any([(times >= start) & (times <= end) for start, end in windows], axis=0)

    def f1(threshold: float) -> float:
        over = scores >= threshold
        return 2 * (over & inside).sum() / (over.sum() + inside.sum())

    assert f1(told["threshold"]) == max(map(f1, scores[~np.isnan(scores)])) > 0.5
    detail = client.get("/series/a/log").json()["log"][0]["detail"]
    assert detail["method"] == "labelled" and detail["windows"] == 2


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"method": "labelled"}, 'with "windows"'),
        ({"windows": [[1, 2]]}, 'with "windows"'),
        ({"method": "labelled", "windows": [[1, 2]], "threshold": 2.0}, "send either"),
        ({"method": "labelled", "windows": [[1]]}, "windows"),
        ({"method": "labelled", "windows": []}, "windows"),
        ({"method": "guess", "windows": [[1, 2]]}, "method"),
        ({"method": "labelled", "windows": [[2, 1]]}, "start first"),
        ({"method": "labelled", "windows": [[1, 2]]}, "must hold some"),
        ({"method": "labelled", "windows": [[0, 1e11]]}, "must hold some"),
    ],
)
def test_labels_that_set_nothing(learned_one: TestClient, body: dict[str, Any], line: str) -> None:
    assert line in line_of(learned_one.put("/series/a/threshold", json=body), 422)
    assert learned_one.get("/series/a/threshold").json()["chosen"] is None


@pytest.fixture(scope="module")
def learned_one(detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with a series that no request of the tests changes."""
    from monitor_client import client_of

    from apps.monitor.config import MonitorConfig
    from apps.monitor.service import create_app

    config = MonitorConfig(per_minute=100_000, warm_up=WARM_UP)
    with client_of(create_app(tmp_path_factory.mktemp("one") / "data", detector, "tiny", config)) as client:
        send(client, "a", waves(60, start=learned(client)), WARM_UP)
        yield client
