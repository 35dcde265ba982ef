"""Key, host, size and type of a request, headers of an answer, and a real socket."""

import asyncio
import socket
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from apps.web import guard
from apps.web.config import ServeConfig
from apps.web.guard import bounded_body
from apps.web.replies import Refused
from apps.web.server import create_app

KEY = "correct-horse-battery"
TEXT = "The striker scored two goals in the final."


# Key


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Basic {KEY}",
        KEY,
        "Bearer \xfc",
    ],
)
def test_without_the_key(locked: TestClient, model: Any, value: str | None, error_of: Any) -> None:
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    reply = locked.post("/classify", json={"text": TEXT}, headers=headers)
    assert reply.status_code == 401
    assert error_of(reply).startswith("the API key is missing or wrong; send it as")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert model.calls == 0


def test_with_the_key(locked: TestClient) -> None:
    for value in (f"Bearer {KEY}", f"bearer {KEY}"):
        reply = locked.post("/classify", json={"text": TEXT}, headers={"Authorization": value})
        assert reply.status_code == 200


def test_the_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    assert guard.same_key(f"Bearer {KEY}", KEY)
    assert not guard.same_key(None, KEY)
    assert compared == [(KEY.encode(), KEY.encode()), (b"", KEY.encode())]


def test_page_and_health_need_no_key(locked: TestClient) -> None:
    assert locked.get("/").status_code == 200
    assert locked.get("/health").json()["key_required"] is True


def test_the_key_comes_from_the_environment_and_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_API_KEY", KEY)
    assert ServeConfig().api_key == KEY
    assert KEY not in repr(ServeConfig())
    monkeypatch.setenv("EDGEWISE_API_KEY", "")
    assert ServeConfig().api_key is None


# Headers, pages, OpenAPI


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/openapi.json", "/page/app.js", "/nothing"])
def test_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_answers_are_not_cached(client: TestClient) -> None:
    assert client.post("/classify", json={"text": TEXT}).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:9", "[::1]:8080", "[::1]"]
)
def test_loopback_hosts(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


def test_any_host_where_the_network_is_served(model: Any, client_of: Any) -> None:
    client = client_of(create_app(model, ServeConfig(host="0.0.0.0", api_key=KEY)))
    assert client.get("/health", headers={"Host": "models.example"}).status_code == 200


# Over a real socket


def over_socket(port: int, parts: list[bytes]) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        reply = b""
        while not reply.endswith(b"}") and (got := connection.recv(65_536)):
            reply += got
        return reply


HEAD = b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_chunked_body_within_the_limit(port: int) -> None:
    parts = [chunk(b'{"text": "the stri'), chunk(b'ker"}'), b"0\r\n\r\n"]
    assert b"200 OK" in over_socket(port, [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *parts])


def test_chunked_body_over_the_limit_is_refused_before_its_end(port: int, model: Any) -> None:
    parts = [chunk(b"a" * 5000)] * 5  # 25,000 of 20,000 bytes, and the end never comes
    reply = over_socket(port, [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *parts])
    assert b"413 " in reply.split(b"\r\n")[0]
    assert b"the body is over 20000 bytes" in reply
    assert model.calls == 0


def test_announced_length_over_the_limit_is_refused_unread(port: int) -> None:
    reply = over_socket(port, [HEAD + b"Content-Length: 99999999999\r\n\r\n"])
    assert b"413 " in reply.split(b"\r\n")[0]


def test_slow_body_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    reply = over_socket(port, [HEAD + b"Content-Length: 100\r\n\r\n{"])
    assert b"408 " in reply.split(b"\r\n")[0]


def test_a_body_that_is_cut_off_by_the_end_of_the_server_is_one_line():
    async def receive():
        raise asyncio.CancelledError

    with pytest.raises(Refused, match="the service is stopping") as caught:
        asyncio.run(bounded_body(Headers(), receive, 100, 5)())
    assert caught.value.status == 503
