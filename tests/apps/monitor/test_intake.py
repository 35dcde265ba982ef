"""Points on their way to the disk: bounded, whole, thinned out, and as before where a write failed."""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from monitor_client import START, learned, line_of, rows, send, spiked, wait_for
from tiny_detector import WARM_UP, waves

from apps.monitor import schema
from apps.monitor.config import MonitorConfig
from apps.monitor.retention import DAY_S, Retention
from runtimes.errors import InputError


class Gate:
    """Holds the writer until it is opened."""

    def __init__(self, service: Any) -> None:
        self.open, commit = threading.Event(), service.scorer.commit
        service.scorer.commit = lambda requests: (self.open.wait(30), commit(requests))[1]


def test_a_full_queue_is_told_at_once_and_nothing_of_it_is_lost(start: Callable[..., TestClient]) -> None:
    client = start(config=MonitorConfig(waiting_points=20, warm_up=WARM_UP))
    service = client.app.state.service  # type: ignore[attr-defined]
    gate = Gate(service)
    replies: dict[str, Any] = {}

    def post(name: str, count: int) -> None:
        replies[name] = client.post(f"/series/{name}/points", json=rows(waves(count)))

    waiting = [threading.Thread(target=post, args=(name, 8)) for name in ("a", "b")]
    for thread in waiting:
        thread.start()
    wait_for(lambda: service.intake.waiting == 16)
    refused = client.post("/series/c/points", json=rows(waves(8)))
    assert "16 points wait already; try again in" in line_of(refused, 503)
    assert int(refused.headers["Retry-After"]) >= 1
    assert replies == {} and client.get("/health").json()["waiting_points"] == 16
    gate.open.set()
    for thread in waiting:
        thread.join(20)
    assert [replies[name].json()["stored"] for name in ("a", "b")] == [8, 8]
    assert send(client, "c", waves(8))["stored"] == 8 and service.intake.waiting == 0


def test_a_request_larger_than_the_queue_passes_an_empty_one(start: Callable[..., TestClient]) -> None:
    client = start(config=MonitorConfig(waiting_points=20, warm_up=WARM_UP))
    assert send(client, "a", waves(50))["stored"] == 50


def test_a_websocket_is_read_no_faster_than_its_points_are_stored(start: Callable[..., TestClient]) -> None:
    client = start(config=MonitorConfig(waiting_points=20, warm_up=WARM_UP))
    service = client.app.state.service  # type: ignore[attr-defined]
    gate = Gate(service)
    with client.websocket_connect("/ingest", headers={"host": "127.0.0.1"}) as socket:
        for number in range(40):
            points = [{"series": "a", "time": START + number, "values": [1.0]}]
            socket.send_text(json.dumps({"id": number, "points": points}))
        wait_for(lambda: service.intake.waiting == 8)  # of forty frames, so many are under way
        assert line_of(client.get("/series/a"), 404)  # others are answered meanwhile
        gate.open.set()
        replies = [socket.receive_json() for _ in range(40)]
    assert [reply["id"] for reply in replies] == list(range(40))
    assert all(reply["stored"] == 1 for reply in replies)


def test_where_a_write_fails_all_is_as_before(client: TestClient, detector: Any) -> None:
    """A disk that is full, for real: the file may not grow."""
    file = client.app.state.service.scorer.file  # type: ignore[attr-defined]
    count, values = learned(client), waves(WARM_UP + 500)
    send(client, "a", values[count : count + 50], count)
    (pages,) = file.execute("PRAGMA page_count").fetchone()
    file.execute(f"PRAGMA max_page_count = {pages}")
    more = {"points": [{"series": f"new-{at}", "time": START, "values": [1.0]} for at in range(400)]}
    more["points"] += [
        {"series": "a", "time": START + at, "values": values[at].tolist()}
        for at in range(count + 50, count + 90)
    ]
    reply = client.post("/points", json=more)
    assert "could not be written" in line_of(reply, 503) and reply.headers["Retry-After"]
    assert [one["name"] for one in client.get("/series").json()["series"]] == ["a"]
    file.execute("PRAGMA max_page_count = 1000000")
    send(client, "a", values[count + 50 :], count + 50)
    told = client.get("/series/a/points", params={"limit": 5000}).json()
    assert told["times"] == [START + at for at in range(len(values))]
    most = detector.limits["window"] + detector.limits["patch"]
    stream = detector.stream(detector.fit(values[:count], names=["value"]))
    stream.push(np.arange(count - most, count), values[count - most : count])
    wanted = stream.push(np.arange(count, len(values)), values[count:]).score
    np.testing.assert_allclose(np.array(told["scores"][count:], float), wanted, atol=1e-5)


def test_old_points_go_but_none_that_the_stream_needs(opened: Callable[..., TestClient]) -> None:
    config = MonitorConfig(keep_points=1000, keep_days=1, warm_up=WARM_UP, per_minute=100_000)
    with opened(config=config) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        count = learned(client)
        send(client, "a", waves(1200, start=count), count)
        daily = {"times": [START + at * DAY_S for at in range(1, 40)], "values": waves(39).tolist()}
        client.post("/series/slow/points", json=daily)
        gone = client.portal.call(service.intake.do, Retention(service.scorer).turn)  # type: ignore[union-attr]
        assert gone == count + 200
        told = client.get("/series/a/points", params={"limit": 5000}).json()["times"]
        assert told == [START + at for at in range(count + 200, count + 1200)]
        assert len(client.get("/series/slow/points").json()["times"]) == 39  # it has not learned yet
        wanted = client.get("/series/a").json()["score"]
    with opened(config=config) as client:  # wakes from what is left
        send(client, "a", waves(1, start=count + 1200), count + 1200)
        assert client.get("/series/a").json()["score"] is not None and wanted is not None


def test_old_alarms_and_logs_go(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    learned(client)
    file = service.scorer.file
    file.execute("UPDATE log SET at = at - 500 * 86400")
    client.portal.call(service.intake.do, Retention(service.scorer).turn)  # type: ignore[union-attr]
    assert client.get("/log").json()["log"] == []


def test_a_file_of_the_first_schema_goes_on(opened: Callable[..., TestClient], folder: Path) -> None:
    with opened() as client:
        count = learned(client)
        send(client, "a", spiked(60, 30, count), count)
        alarm = client.get("/alarms").json()["alarms"][0]
    with sqlite3.connect(folder / schema.FILE) as file:
        file.execute("ALTER TABLE points DROP COLUMN parts")
        file.execute("ALTER TABLE alarms DROP COLUMN parts")
        file.execute("UPDATE about SET value = '1' WHERE key = 'schema'")
    with opened() as client:
        assert client.get("/alarms").json()["alarms"] == [alarm | {"parts": None}]
        why = client.get("/series/a/explain", params={"at": alarm["peak_time"]}).json()
        assert why["parts"] is None and why["score"] == alarm["score"]
        send(client, "a", waves(120, start=count + 60), count + 60)
        assert client.get("/alarms").json()["alarms"][0]["parts"] == alarm["parts"]


def test_a_newer_or_foreign_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / schema.FILE
    schema.prepare(path).close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE about SET value = '99'")
    with pytest.raises(InputError, match="schema 99 is newer than 2; upgrade edgewise"):
        schema.prepare(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="no file of the monitor"):
        schema.prepare(path)
    path.unlink()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE other (x)")
    with pytest.raises(InputError, match="no file of the monitor"):
        schema.prepare(path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"port": 70000}, "port 70000 is outside"),
        ({"per_minute": 0}, "per_minute is 0"),
        ({"keep_points": 10}, "keep_points is 10"),
        ({"keep_days": float("nan")}, "keep_days is nan"),
        ({"warm_up": 3}, "warm_up is 3"),
        ({"warm_up": 60_000}, "over keep_points"),
    ],
)
def test_settings_that_cannot_work(change: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        MonitorConfig(**change)
