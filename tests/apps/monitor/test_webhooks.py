"""Alerts: sent once, signed, tried again, and to nowhere that the operator did not allow."""

import hashlib
import hmac
import json
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from monitor_client import Receiver, learned, line_of, send, spiked, wait_for
from tiny_detector import WARM_UP, waves

from apps.monitor import outbox, sending
from apps.monitor.config import MonitorConfig
from runtimes.errors import InputError


def hook(client: TestClient, url: str, **more: Any) -> dict[str, Any]:
    reply = client.post("/webhooks", json={"url": url, **more})
    assert reply.status_code == 201, reply.text
    return reply.json()


def alarm_once(client: TestClient, name: str = "a") -> int:
    """One alarm that opens and closes; how many points the series has."""
    count = learned(client, name)
    send(client, name, np.concatenate([spiked(60, 30, count), waves(120, start=count + 60)]), count)
    return count + 180


def deliveries(client: TestClient, id: str) -> list[dict[str, Any]]:
    return client.get(f"/webhooks/{id}/deliveries").json()["deliveries"]


def test_an_alert_is_signed_and_told_once(client: TestClient, receiver: Receiver) -> None:
    made = hook(client, f"{receiver.url}/alerts?x=1")
    alarm_once(client)
    wait_for(lambda: len(receiver.got) == 2)
    (alarm,) = client.get("/alarms").json()["alarms"]
    assert {body["kind"] for body in receiver.bodies()} == {"opened", "closed"}
    for headers, body, at in receiver.got:
        told = json.loads(body)
        assert told["alarm"] == alarm["id"] and told["series"] == "a"
        assert headers["Edgewise-Delivery"] == told["delivery"]
        stamp = headers["Edgewise-Timestamp"]
        assert abs(int(stamp) - at) < 5
        signed = hmac.new(made["secret"].encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert headers["Edgewise-Signature"] == f"sha256={signed}"
    wait_for(lambda: all(one["state"] == "sent" for one in deliveries(client, made["id"])))
    assert "secret" not in json.dumps(client.get("/webhooks").json())
    assert client.delete(f"/webhooks/{made['id']}").status_code == 200
    assert line_of(client.get(f"/webhooks/{made['id']}/deliveries"), 404)


def test_what_fails_is_tried_again_and_a_redirect_is_not_followed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_WAIT_S", 0.05)
    receiver = Receiver(500, 302, 200)
    try:
        made = hook(client, receiver.url, series=["a"])
        learned(client)
        send(client, "a", spiked(60, 30, WARM_UP), WARM_UP)
        (one,) = wait_for(lambda: [one for one in deliveries(client, made["id"]) if one["state"] == "sent"])
        assert one["attempts"] == 3 and one["said"] == "status 200"
        assert len({headers["Edgewise-Delivery"] for headers, _, _ in receiver.got}) == 1
    finally:
        receiver.stop()


def test_it_gives_up_in_the_end(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(outbox, "ATTEMPTS", 3)
    made = hook(client, "http://127.0.0.1:9/")  # nobody listens there
    learned(client)
    send(client, "a", spiked(60, 30, WARM_UP), WARM_UP)
    (one,) = wait_for(lambda: [one for one in deliveries(client, made["id"]) if one["state"] == "failed"])
    assert one["attempts"] == 3 and "refused" in one["said"]


def test_a_cool_down_holds_back_what_follows(client: TestClient, receiver: Receiver) -> None:
    made, other = hook(client, receiver.url, cool_down_s=3600.0), hook(client, receiver.url, series=["b"])
    rules = {"min_points": 3, "cool_down_s": 0.0, "merge_gap_s": 5.0}
    count = learned(client)
    client.put("/series/a/rules", json=rules)
    for _ in range(2):
        send(client, "a", np.concatenate([spiked(60, 30, count), waves(120, start=count + 60)]), count)
        count += 180
    alarms = client.get("/alarms").json()["alarms"]
    assert len(alarms) >= 2
    wait_for(lambda: len(receiver.got) == 2)
    assert {body["alarm"] for body in receiver.bodies()} == {alarms[-1]["id"]}
    states = [one["state"] for one in deliveries(client, made["id"])]
    assert states.count("cooling") == len(alarms) - 1 and deliveries(client, other["id"]) == []


def test_what_waits_is_sent_after_a_restart(
    opened: Callable[..., TestClient], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_WAIT_S", 1.0)
    receiver.answers = [503]
    with opened() as client:
        made = hook(client, receiver.url)
        learned(client)
        send(client, "a", spiked(60, 30, WARM_UP), WARM_UP)
        wait_for(lambda: [one for one in deliveries(client, made["id"]) if one["attempts"]])
    receiver.answers = [200]
    with opened() as again:
        wait_for(lambda: [one for one in deliveries(again, made["id"]) if one["state"] == "sent"])
    assert len({body["delivery"] for body in receiver.bodies()}) == 1


def test_an_alert_that_ends_while_the_list_is_looked_at_is_not_sent_again(
    client: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = client.app.state.service.alerts
    look, going, old = alerts._look, threading.Event(), threading.Event()

    def held(*what: Any) -> tuple[bool, str]:
        going.set()
        assert old.wait(20)
        return send_really(*what)

    def late() -> Any:
        found = look()
        if going.is_set() and not old.is_set():
            assert found[0]  # the list is older than the attempt's end
            old.set()
            wait_for(lambda: not alerts.running)
        return found

    send_really = sending.send
    monkeypatch.setattr("apps.monitor.alerts.send", held)
    alerts._look = late
    made = hook(client, receiver.url)
    count = learned(client)
    send(client, "a", spiked(60, 30, count), count)
    assert going.wait(20)
    alerts.told()
    wait_for(lambda: [one for one in deliveries(client, made["id"]) if one["state"] == "sent"])
    alerts.told()
    send(client, "a", waves(120, start=count + 60), count + 60)  # and what comes next is sent
    wait_for(lambda: [body for body in receiver.bodies() if body["kind"] == "closed"])
    assert [body["kind"] for body in receiver.bodies()] == ["opened", "closed"]


def test_an_alert_whose_end_cannot_be_written_is_not_sent_again(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, tries = outbox.ended, []

    def full(*what: Any) -> None:
        tries.append(what)
        if len(tries) < 4:
            raise sqlite3.OperationalError("database or disk is full")
        end(*what)

    monkeypatch.setattr(outbox, "ended", full)
    monkeypatch.setattr("apps.monitor.alerts.WRITE_AGAIN_S", 0.02)
    made = hook(client, receiver.url)
    count = learned(client)
    send(client, "a", spiked(60, 30, count), count)
    wait_for(lambda: [one for one in deliveries(client, made["id"]) if one["state"] == "sent"])
    assert len(tries) == 4 and len(receiver.got) == 1


def test_an_answer_that_drips_in_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "WHOLE_SECONDS", 0.2)
    done, drops = threading.Event(), []

    def drip() -> None:
        with listener.accept()[0] as client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            try:
                for _ in range(1000):
                    client.sendall(b"x")
                    drops.append(b"x")
                    if done.wait(0.05):
                        return
            except OSError:
                pass  # the other side has gone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        sent, said = sending.send(url, "s" * 16, b"{}", "d", "0", private=True)
        done.set()
    assert not sent and "within 0.2 s" in said and len(drops) < 1000, said


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "fec0::1", "64:ff9b:1::a00:1", "5f00::1", "3fff::1", "192.88.99.1", "2002:c058:6301::",
        "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::", "fe80::1%eth0",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not sending.is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101", "2a00:1450::1"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert sending.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost:8080/x", "http://[::1]/", "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/", "http://169.254.169.254/latest/meta-data", "http://0/",
    ],
)  # fmt: skip
def test_private_targets_are_refused_unless_allowed(start: Callable[..., TestClient], url: str) -> None:
    client = start(config=MonitorConfig(warm_up=WARM_UP))
    assert "no public address" in line_of(client.post("/webhooks", json={"url": url}), 422)


def test_a_name_that_moves_inside_later_gets_nothing(receiver: Receiver) -> None:
    sent, said = sending.send(f"{receiver.url}/", "s" * 16, b"{}", "d", "0", private=False)
    assert not sent and "no public address" in said and receiver.got == []
    assert sending.send(f"{receiver.url}/", "s" * 16, b"{}", "d", "0", private=True) == (True, "status 200")


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a.b/", "http:///x", "https://a.b:0/", "https://a.b:99999/", "https://u@a.b/",
     "https://a.b/#x", "https://a.b/ x", "https://a.b/\r\nHost: c", "https://é.b/",
     "https://a.b/" + "x" * 2000],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError):
        sending.check_url(url)


def test_the_outbox_is_bounded(client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 0)
    made = hook(client, "http://127.0.0.1:9/")
    learned(client)
    send(client, "a", spiked(60, 30, WARM_UP), WARM_UP)
    assert [one["state"] for one in deliveries(client, made["id"])] == ["dropped"]
    with sqlite3.connect(folder / "monitor.sqlite") as file:
        assert file.execute("SELECT count(*) FROM deliveries WHERE state = 'waiting'").fetchone() == (0,)
