"""Who may do what: roles, bound keys, WebSockets, and what a revoked key still opens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from monitor_client import START, rows
from tiny_detector import waves

from apps.web.keys import Keys


def test_who_may_do_what(start: Callable[..., TestClient], keys: dict[str, str]) -> None:
    client = start()
    body = rows(waves(1))
    wanted = {
        ("GET", "/series"): (401, 200, 200, 200),
        ("POST", "/series/a/points"): (401, 403, 200, 200),
        ("POST", "/series/b/points"): (401, 403, 403, 200),
        ("PUT", "/series/a/threshold"): (401, 403, 403, 200),
        ("GET", "/webhooks"): (401, 403, 403, 200),
        ("GET", "/metrics"): (401, 403, 403, 200),
        ("POST", "/series/a/refit"): (401, 403, 403, 422),
        ("GET", "/health"): (200, 200, 200, 200),
        ("DELETE", "/series/a"): (401, 403, 403, 200),
    }
    bodies = {"points": body, "threshold": {"threshold": 2.0}, "refit": {}}
    for (method, path), statuses in wanted.items():
        for key, status in zip(("none", "read", "bound", "admin"), statuses, strict=True):
            reply = client.request(
                method, path, json=bodies.get(path.split("/")[-1]),
                headers={"Authorization": f"Bearer {keys.get(key, 'x')}"},
            )  # fmt: skip
            assert reply.status_code == status, (method, path, key, reply.text)
    admin = {"Authorization": f"Bearer {keys['admin']}"}
    client.post("/series/a/points", json=body, headers=admin)
    seen = client.get("/series", headers={"Authorization": f"Bearer {keys['bound']}"}).json()
    assert [one["name"] for one in seen["series"]] == ["a"] and seen["role"] == "write"


def test_a_websocket_needs_the_key_and_no_foreign_page(
    start: Callable[..., TestClient], keys: dict[str, str]
) -> None:
    from starlette.testclient import WebSocketDenialResponse

    client = start()
    good = {"host": "127.0.0.1", "authorization": f"Bearer {keys['write']}"}
    bad = (
        (good | {"authorization": ""}, 401),
        (good | {"authorization": f"Bearer {keys['read']}"}, 403),
        (good | {"origin": "https://elsewhere.example"}, 403),
        (good | {"host": "elsewhere.example"}, 421),
    )
    for headers, status in bad:
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("/ingest", headers=headers),
        ):
            pass
        assert refused.value.status_code == status
    with client.websocket_connect("/ingest", headers=good) as socket:
        socket.send_json({"points": [{"series": "a", "time": START, "values": [1.0]}]})
        assert socket.receive_json()["stored"] == 1


@pytest.mark.parametrize("first", [False, True])
def test_a_revoked_key_writes_no_more_over_its_open_websocket(
    start: Callable[..., TestClient], folder: Path, first: bool
) -> None:
    """`first`: opened without a key, before the first one was made."""
    from starlette.websockets import WebSocketDisconnect

    def frame(second: int) -> dict[str, Any]:
        return {"id": second, "points": [{"series": "a", "time": START + second, "values": [1.0]}]}

    kept = Keys(folder)
    headers = {"host": "127.0.0.1"}
    key, text = (None, "") if first else kept.make("gateway", "write")
    if key:
        headers["authorization"] = f"Bearer {text}"
    client: Any = start()
    with client.websocket_connect("/ingest", headers=headers) as socket:
        socket.send_json(frame(1))
        assert socket.receive_json()["stored"] == 1
        if key:
            kept.revoke(key.id)
        else:
            kept.make("the first one", "admin")
        socket.send_json(frame(2))
        told = socket.receive_json()
        assert told["id"] == 2 and told["status"] == 401 and "stored" not in told
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1008
    kept.close()
    assert client.app.state.service.scorer.series["a"].count == 1
