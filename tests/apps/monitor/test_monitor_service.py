"""The service end to end, over a real tiny detector: points in, scores, alarms and explanations out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from monitor_client import START, learned, line_of, send, spiked, wait_for
from tiny_detector import WARM_UP, waves

from apps.monitor import points, schemas
from apps.monitor.config import MonitorConfig
from apps.monitor.points import PointsRequest, SeriesPointsRequest
from apps.monitor.service import Service
from runtimes.errors import InputError
from runtimes.profile import PARTS

LOOSE_AND_LONG = MonitorConfig(per_minute=100_000, warm_up=600)


def scores_of(client: TestClient, name: str = "a") -> list[float | None]:
    return client.get(f"/series/{name}/points", params={"limit": 5000}).json()["scores"]


def test_points_are_scored_and_an_alarm_is_explained(client: TestClient) -> None:
    count = learned(client, channels=2)
    send(client, "a", spiked(60, 30, count, channels=2), count)
    (alarm,) = client.get("/alarms", params={"series": "a"}).json()["alarms"]
    assert START + count + 30 <= alarm["peak_time"] <= START + count + 36
    assert alarm["closed"] is None and alarm["end"] is None and alarm["score"] >= alarm["threshold"]
    assert [one["name"] for one in alarm["channels"]] == ["c0", "c1"]
    assert tuple(alarm["parts"]) == PARTS and abs(sum(alarm["parts"].values()) - 1) < 0.01
    spoke = alarm["parts"]
    assert spoke["forecast"] + spoke["recent"] + spoke["value"] > 0.4, spoke
    why = client.get("/series/a/explain", params={"at": alarm["peak_time"]}).json()
    loud = why["channels"][0]
    assert why["parts"] == pytest.approx(spoke, abs=0.01)
    assert loud["name"] == "c0" and loud["share"] > 0.5 and loud["seen"] - loud["expected"] > 4
    place = why["window"]["times"].index(loud["at"])
    assert why["window"]["values"][place][0] == loud["seen"] and len(why["window"]["times"]) > 60
    assert client.get("/series/a").json()["state"] == "alarm"
    send(client, "a", waves(120, 2, start=count + 60), count + 60)
    closed = client.get(f"/alarms/{alarm['id']}").json()
    assert closed["parts"] == spoke
    assert closed["closed"] and closed["end"] >= closed["peak_time"]
    assert client.get("/series/a").json()["state"] == "normal"


def test_scores_are_those_of_the_whole_array(client: TestClient, detector: Any) -> None:
    count, values = learned(client), waves(WARM_UP + 200)
    for at in range(count, len(values), 7):
        send(client, "a", values[at : at + 7], at)
    profile = detector.fit(values[:count], names=["value"])
    told = np.array([np.nan if one is None else one for one in scores_of(client)])
    stream = detector.stream(profile)
    most = detector.limits["window"] + detector.limits["patch"]
    stream.push(np.arange(count - most, count), values[count - most : count])
    expected = stream.push(np.arange(count, len(values)), values[count:]).score
    np.testing.assert_allclose(told[count:], expected, atol=1e-4)
    assert np.isnan(told[:count]).all()


def test_a_series_with_gaps_is_learned_and_refitted_as_a_stream_sees_it(
    start: Callable[..., Any], detector: Any
) -> None:
    client, first = start(config=LOOSE_AND_LONG), LOOSE_AND_LONG.warm_up
    values = waves(3000)
    times = START + np.arange(3000) + 21.0 * (np.arange(3000) // 120)  # a gap after every 120 points
    body = {"times": times[:first].tolist(), "values": values[:first].tolist()}
    client.post("/series/a/points", json=body)
    wait_for(lambda: client.get("/series/a").json()["learned"])
    profile = detector.fit(values[:first], names=["value"], step=1.0, times=times[:first])
    plain = detector.fit(values[:first], names=["value"], step=1.0)
    kept = client.app.state.service.scorer.series["a"].profile
    assert kept.threshold == pytest.approx(profile.threshold, rel=1e-5)
    assert plain.threshold != pytest.approx(profile.threshold, rel=1e-3)
    client.put("/series/a/threshold", json={"threshold": 1e5})  # no alarm holds points back
    body = {"times": times[first:].tolist(), "values": values[first:].tolist()}
    client.post("/series/a/points", json=body)
    told = client.post("/series/a/refit").json()
    made = detector.fit(values[:2100], names=["value"], step=1.0, period=kept.period, times=times[:2100])
    assert told["new_threshold"] == pytest.approx(made.threshold, rel=1e-5)


def test_late_repeated_and_missing_points(client: TestClient) -> None:
    assert send(client, "a", waves(10), 10) == {"stored": 10, "late": 0, "repeated": 0}
    assert send(client, "a", waves(12), 8) == {"stored": 0, "late": 2, "repeated": 10}
    body = {"times": [START + 30, START + 22, START + 30], "values": [[1.0], [2.0], [3.0]]}
    reply = client.post("/series/a/points", json=body).json()
    assert reply == {"stored": 2, "late": 0, "repeated": 1}
    lines = f"{START + 31:.0f},\n{START + 32:.0f},nan\n{START + 33:.0f},4e0\n"
    reply = client.post("/series/a/points", content=lines, headers={"Content-Type": "text/csv"})
    assert reply.json() == {"stored": 3, "late": 0, "repeated": 0}
    told = client.get("/series/a/points", params={"since": START + 19}).json()
    assert told["times"] == [START + at for at in (22, 30, 31, 32, 33)]
    assert told["values"] == [[2.0], [1.0], [None], [None], [4.0]]
    about = client.get("/series/a").json()
    assert about["points"] == 15 and about["late"] == 2 and about["repeated"] == 11


def test_points_that_are_sent_again_are_repeated_and_not_late(client: TestClient) -> None:
    send(client, "a", waves(5))
    assert send(client, "a", waves(5)) == {"stored": 0, "late": 0, "repeated": 5}
    parts = [points.part("a", None, [START + at], [[1.0]], time.time()) for at in (7.0, 6.0, 7.0, 4.0)]
    scorer: Any = client.app.state.service.scorer  # type: ignore[attr-defined]
    told = scorer.commit([[part] for part in parts])  # of one transaction
    assert [(one.stored, one.late, one.repeated) for one in told] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, 0, 1),
    ]


def test_many_series_by_name_and_by_line(client: TestClient) -> None:
    at = "2023-11-14T22:13:20+00:00"
    body = [
        {"series": "x", "time": at, "values": {"cpu": 1.0, "disk": 2.0}},
        {"series": "x", "time": START + 1, "values": {"disk": 4.0, "cpu": 3.0}},
        {"series": "y.z", "time": START, "values": [5]},
    ]
    assert client.post("/points", json={"points": body}).json()["stored"] == 3
    content = f"series,time,value\ny.z,{START + 1},6\nnew,{at},7\n"
    reply = client.post("/points", content=content, headers={"Content-Type": "text/csv; charset=utf-8"})
    assert reply.json()["stored"] == 2
    assert [one["name"] for one in client.get("/series").json()["series"]] == ["new", "x", "y.z"]
    told = client.get("/series/x/points").json()
    assert told["channels"] == ["cpu", "disk"] and told["values"] == [[1.0, 2.0], [3.0, 4.0]]


def test_a_websocket_is_answered_frame_by_frame(client: TestClient) -> None:
    frame = {"points": [{"series": "a", "time": START, "values": [1.0]}]}
    with client.websocket_connect("/ingest", headers={"host": "127.0.0.1"}) as socket:
        for text, wanted in (
            (json.dumps({"id": "x", **frame}), {"id": "x", "stored": 1, "late": 0, "repeated": 0}),
            (json.dumps({"id": 2, **frame}), {"id": 2, "stored": 0, "late": 0, "repeated": 1}),
        ):
            socket.send_text(text)
            assert socket.receive_json() == wanted
        for text, status in (("{", 400), ("[]", 422), ('{"id": [], "points": []}', 422), ('{"id": 5}', 422)):
            socket.send_text(text)
            reply = socket.receive_json()
            assert reply["status"] == status and "\n" not in reply["error"], reply
        assert reply["id"] == 5
    assert client.get("/series/a").json()["points"] == 1


JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}


def point(**change: Any) -> dict[str, Any]:
    return {"points": [{"series": "a", "time": START, "values": [1.0]} | change]}


NAN = b'{"points": [{"series": "a", "time": NaN, "values": [1]}]}'
ENDLESS = b'{"points": [{"series": "a", "time": 1, "values": [Infinity]}]}'
MIXED = point()["points"] + point(values={"x": 1.0})["points"]
WIDE = point()["points"] + point(values=[1.0, 2.0])["points"]
MANY = {"times": list(range(5001)), "values": [[1.0]] * 5001}
TWICE = {"channels": ["x", "x"], "times": [1], "values": [[1.0, 2.0]]}
ODD_RULES = {"min_points": 0, "cool_down_s": 0, "merge_gap_s": 0}
OTHERS = JSON | {"Origin": "https://elsewhere.example"}
BROKEN: dict[str, tuple[str, str, Any, dict[str, str], int, str]] = {
    "not JSON": ("POST", "/points", b"{", JSON, 400, "not valid JSON"),
    "half a character": ("POST", "/points", b'{"points": [{"series": "\xff"}]}', JSON, 400, "not valid JSON"),
    "a list": ("POST", "/points", [], JSON, 422, "one JSON object"),
    "no points": ("POST", "/points", {"points": []}, JSON, 422, "points"),
    "an unknown field": ("POST", "/points", {"points": [], "more": 1}, JSON, 422, ""),
    "a bad name": ("POST", "/points", point(series="../etc"), JSON, 422, "is no name for a series"),
    "a long name": ("POST", "/points", point(series="x" * 65), JSON, 422, "is no name for a series"),
    "a time in milliseconds": ("POST", "/points", point(time=1.7e12), JSON, 422, "divide milliseconds"),
    "a time ahead": ("POST", "/points", point(time=9e10), JSON, 422, "ahead of the clock"),
    "a time before 1970": ("POST", "/points", point(time=-1), JSON, 422, "before 1970"),
    "a time without a zone": ("POST", "/points", point(time="2026-01-01T00:00:00"), JSON, 422, "has no zone"),
    "a time that is none": ("POST", "/points", point(time="noon"), JSON, 422, "neither unix seconds"),
    "a time that is NaN": ("POST", "/points", NAN, JSON, 422, "before 1970"),
    "a text as value": ("POST", "/points", point(values=["1"]), JSON, 422, "values"),
    "true as value": ("POST", "/points", point(values=[True]), JSON, 422, "values"),
    "infinity": ("POST", "/points", ENDLESS, JSON, 422, "beyond"),
    "no value": ("POST", "/points", point(values=[]), JSON, 422, "1 to 64"),
    "65 values": ("POST", "/points", point(values=[1.0] * 65), JSON, 422, "1 to 64"),
    "names and no names": ("POST", "/points", {"points": MIXED}, JSON, 422, "different channels"),
    "other widths": ("POST", "/points", {"points": WIDE}, JSON, 422, "different widths"),
    "another width than before": (
        "POST", "/points", point(series="old", values=[1.0, 2.0]),
        JSON, 422, "has 1 channels, not 2"),
    "other channels than before": (
        "POST", "/points", point(series="old", values={"x": 1.0}),
        JSON, 422, 'has the channels "value"'),
    "more times than rows": (
        "POST", "/series/a/points", {"times": [1, 2], "values": [[1.0]]},
        JSON, 422, "2 times and 1 rows"),
    "a name twice": ("POST", "/series/a/points", TWICE, JSON, 422, "stands twice"),
    "too many points": ("POST", "/series/a/points", MANY, JSON, 422, "at most 5000"),
    "lines without a value": ("POST", "/points", b"a,1\n", CSV, 422, "line 1 has too few fields"),
    "lines with words": ("POST", "/points", b"a,1,2\na,2,two\n", CSV, 422, 'line 2 has "two"'),
    "lines of nothing": ("POST", "/points", b"\n\n", CSV, 422, "no points"),
    "lines in UTF-16": ("POST", "/points", "a,1,2".encode("utf-16"), CSV, 400, "not UTF-8"),
    "an open quote": ("POST", "/points", b'a,1,"2\n', CSV, 422, "no CSV"),
    "another type": ("POST", "/points", b"x", {"Content-Type": "text/plain"}, 415, "must be JSON"),
    "too large": ("POST", "/points", b"x" * 2_100_000, CSV, 413, "fewer points"),
    "another site": ("POST", "/points", point(), OTHERS, 403, "another site"),
    "a series that is not there": ("GET", "/series/none/points", None, {}, 404, 'there is no series "none"'),
    "too large a limit": ("GET", "/series/old/points?limit=9999", None, {}, 422, "limit"),
    "a time that is no number": ("GET", "/series/old/explain?at=noon", None, {}, 422, "at"),
    "a time without points": ("GET", "/series/old/explain?at=1600000000", None, {}, 404, "has no point at"),
    "a threshold of NaN": ("GET", "/series/old/threshold/preview?threshold=nan", None, {}, 422, "threshold"),
    "a threshold of zero": ("PUT", "/series/old/threshold", {"threshold": 0}, JSON, 422, "threshold"),
    "no threshold": ("PUT", "/series/old/threshold", {}, JSON, 422, "threshold"),
    "rules that cannot be": ("PUT", "/series/old/rules", ODD_RULES, JSON, 422, "min_points"),
    "a refit too early": ("POST", "/series/old/refit", {}, JSON, 422, "still learns"),
    "an alarm that is not there": (
        "POST", "/alarms/none/ack", {"note": ""},
        JSON, 404, 'there is no alarm "none"'),
    "a state that is none": ("GET", "/alarms?state=odd", None, {}, 422, "state"),
    "a long note": ("POST", "/alarms/none/ack", {"note": "x" * 1001}, JSON, 422, "note"),
    "a webhook to a file": ("POST", "/webhooks", {"url": "file:///etc/passwd"}, JSON, 422, "must be http"),
    "a webhook with a password": (
        "POST", "/webhooks", {"url": "https://a:b@example.org/"},
        JSON, 422, "user or password"),
    "a webhook to nowhere": (
        "POST", "/webhooks", {"url": "https://nowhere.invalid/"},
        JSON, 422, "no such host"),
    "a webhook that is not there": ("DELETE", "/webhooks/none", None, {}, 404, "there is no webhook"),
    "a path that is not there": ("GET", "/elsewhere", None, {}, 404, "there is no"),
    "another method": ("DELETE", "/points", None, {}, 405, "does not take this method"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_requests_are_one_line_and_store_nothing(old: TestClient, case: str) -> None:
    method, path, body, headers, status, line = BROKEN[case]
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    told = line_of(old.request(method, path, content=content, headers=headers), status)
    assert line in told
    assert [one["points"] for one in old.get("/series").json()["series"]] == [1]


@pytest.fixture(scope="module")
def old(detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with one series of one point, that no request of the test changes."""
    from monitor_client import client_of

    from apps.monitor.service import create_app

    config = MonitorConfig(per_minute=100_000, warm_up=WARM_UP)
    with client_of(create_app(tmp_path_factory.mktemp("old") / "data", detector, "tiny", config)) as client:
        send(client, "old", waves(1))
        yield client


def test_rules_hold_from_the_next_point_on_and_after_a_restart(opened: Callable[..., TestClient]) -> None:
    told = {"min_points": 500, "cool_down_s": 0.0, "merge_gap_s": 1.0}
    with opened() as client:
        count = learned(client)
        assert client.put("/series/a/rules", json=told).json()["rules"] == told
        send(client, "a", spiked(100, 50, count), count)
        assert client.get("/alarms").json()["alarms"] == []
    with opened() as client:
        assert client.get("/series/a/threshold").json()["rules"] == told


def test_an_alarm_is_acknowledged_once(start: Callable[..., TestClient], keys: dict[str, str]) -> None:
    client = start(keys["write"])
    count = learned(client)
    send(client, "a", spiked(60, 30, count), count)
    id = client.get("/alarms", params={"state": "unacknowledged"}).json()["alarms"][0]["id"]
    told = client.post(f"/alarms/{id}/ack", json={"note": "the pump was changed"}).json()
    assert told["acked_by"] == "write" and told["note"] == "the pump was changed"
    assert abs(told["acked"] - time.time()) < 60
    assert 'acknowledged before, by "write"' in line_of(client.post(f"/alarms/{id}/ack", json={}), 409)
    assert client.get("/alarms", params={"state": "unacknowledged"}).json()["alarms"] == []


def test_another_model_learns_again(opened: Callable[..., TestClient]) -> None:
    with opened() as client:
        learned(client)
        assert client.get("/series/a").json()["learned"]
    with opened(identity="another") as again:
        wait_for(lambda: len(again.get("/log").json()["log"]) == 3)
        kinds = [line["kind"] for line in again.get("/log").json()["log"]]
        assert kinds == ["learned", "another model", "learned"]
        assert again.get("/series/a").json()["learned"] == WARM_UP


def test_a_series_without_values_says_why_it_learns_nothing(client: TestClient) -> None:
    nothing = {"times": [START + at for at in range(WARM_UP)], "values": [[None]] * WARM_UP}
    client.post("/series/a/points", json=nothing)
    (line,) = wait_for(lambda: client.get("/series/a/log").json()["log"])
    assert line["kind"] == "not learned" and "has no value" in line["detail"]["why"]
    assert client.get("/series/a").json()["state"] == "learning"
    send(client, "a", waves(3 * WARM_UP, start=WARM_UP), WARM_UP)
    wait_for(lambda: client.get("/series/a").json()["learned"])


def test_a_deleted_series_is_gone_with_all_that_was_its(client: TestClient) -> None:
    count = learned(client)
    send(client, "a", spiked(60, 30, count), count)
    assert client.delete("/series/a").json() == {"deleted": "a"}
    assert client.get("/alarms").json()["alarms"] == [] and client.get("/series").json()["series"] == []
    assert send(client, "a", waves(1)) == {"stored": 1, "late": 0, "repeated": 0}
    assert client.get("/series/a/log").json()["log"] == []
    assert [line["kind"] for line in client.get("/log").json()["log"]] == ["deleted", "learned"]


def test_a_series_of_a_deleted_ones_name_has_not_drifted(opened: Callable[..., TestClient]) -> None:
    with opened() as client:
        count = learned(client)
        send(client, "a", waves(2700, start=count), count)
        send(client, "a", waves(4200, start=count + 2700) * 3 + 50, count + 2700)
        assert client.get("/series/a").json()["drifted"]
        client.delete("/series/a")
        send(client, "a", waves(1))
    with opened() as client:
        assert not client.get("/series/a").json()["drifted"]


def test_one_series_that_cannot_be_scored_holds_up_no_other(opened: Callable[..., TestClient]) -> None:
    with opened() as client:
        counts = [learned(client, name, seed=seed) for seed, name in enumerate("abc")]
    with opened() as client:
        scorer: Any = client.app.state.service.scorer  # type: ignore[attr-defined]
        scorer.file.execute("UPDATE series SET state = '{}' WHERE name = 'b'")
        new = [
            {"series": name, "time": START + counts[0] + at, "values": [float(waves(1, start=at)[0, 0])]}
            for name in "abc" for at in range(40)
        ]  # fmt: skip
        assert client.post("/points", json={"points": new}).json()["stored"] == 120
        told = {name: client.get(f"/series/{name}").json() for name in "abc"}
        assert [told[name]["score"] is None for name in "abc"] == [False, True, False]
        assert scorer.scored == 80 and scorer.unscored == 40


def test_the_bounds_of_series(start: Callable[..., TestClient]) -> None:
    client = start(config=MonitorConfig(max_series=2, warm_up=WARM_UP))
    three = [{"series": name, "time": START, "values": [1.0]} for name in "abc"]
    assert "2 series are the most" in line_of(client.post("/points", json={"points": three}), 422)
    assert client.post("/points", json={"points": three[:2]}).json()["stored"] == 2
    assert "2 series are the most" in line_of(client.post("/points", json={"points": three}), 422)


def test_the_document_is_whole_and_its_examples_are_valid(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    models = {"/points": PointsRequest, "/series/{name}/points": SeriesPointsRequest}
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                models[path].model_validate_json(json.dumps(example["value"]))
            for status, reply in told["responses"].items():
                body = reply.get("content", {}).get("application/json")
                if status.startswith("2") and body:
                    assert "example" in body, (method, path)
    assert schemas.SeriesReply.model_validate(schemas.SERIES_EXAMPLE)
    assert schemas.AlarmReply.model_validate(schemas.ALARM_EXAMPLE)
    assert schemas.TakenReply.model_validate(schemas.TAKEN_EXAMPLE)
    assert points.of_csv(schemas.CSV_EXAMPLE, None, time.time())
    assert points.of_csv(schemas.SERIES_CSV_EXAMPLE, "a", time.time())[0].names == ("cpu", "disk")
    assert client.get("/health").json().keys() == schemas.HEALTH_EXAMPLE.keys()
    learned(client)
    assert client.get("/series/a/points").json().keys() == schemas.COLUMNS_EXAMPLE.keys()
    preview = client.get("/series/a/threshold/preview", params={"threshold": 1.0}).json()
    assert preview.keys() == schemas.PREVIEW_EXAMPLE.keys()
    assert client.get("/log").json()["log"][0].keys() == schemas.LOG_EXAMPLE.keys()
    page = client.get("/docs").text
    assert "POST" in page and "/series/{name}/explain" in page and "<script" not in page


def test_one_folder_one_service_and_no_foreign_model(
    client: TestClient, folder: Path, detector: Any, tmp_path: Path
) -> None:
    from apps.web.rate import RateLimit

    with pytest.raises(InputError, match="another service works on this folder"):
        Service(folder, detector, "tiny", MonitorConfig(), RateLimit(1))

    class Other:
        def describe(self) -> dict[str, str]:
            return {"task": "text-classification"}

    with pytest.raises(InputError, match="is no detector"):
        Service(tmp_path / "other", Other(), "x", MonitorConfig(), RateLimit(1))


def test_figures(client: TestClient) -> None:
    learned(client)
    text = client.get("/metrics").text
    assert f'edgewise_points_total{{outcome="stored"}} {WARM_UP}' in text and "edgewise_series 1" in text
    health = client.get("/health").json()
    assert health["ready"] and health["series"] == 1 and health["model"]["task"] == "anomaly-detection"
