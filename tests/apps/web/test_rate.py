"""The rate limit, with a clock that only moves when told."""

import dataclasses
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from apps.web.config import ServeConfig
from apps.web.rate import RateLimit, client_name
from apps.web.server import create_app

KEY = "correct-horse-battery"
TEXT = "The striker scored two goals in the final."


# Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_rate_limit_and_recovery(model: Any, config: ServeConfig, client_of: Any, error_of: Any) -> None:
    clock = Clock()
    app = create_app(model, dataclasses.replace(config, per_minute=3), clock)
    client, neighbour = client_of(app), client_of(app, "192.0.2.2")

    def ask(who: TestClient) -> httpx.Response:
        return who.post("/classify", json={"text": TEXT})

    assert [ask(client).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = ask(client)
    assert refused.headers["Retry-After"] == "20"
    assert error_of(refused) == "over 3 requests a minute; try again in 20 s"
    assert ask(neighbour).status_code == 200
    assert client.get("/health").status_code == 200
    clock.now += 20
    assert [ask(client).status_code for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [ask(client).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_wrong_keys_are_counted_by_address_and_do_not_lock_out_the_holder(
    model: Any, config: ServeConfig, client_of: Any
) -> None:
    app = create_app(model, dataclasses.replace(config, per_minute=2, api_key=KEY), Clock())
    client = client_of(app)
    guess = {"Authorization": "Bearer wrong"}
    statuses = [client.post("/classify", json={"text": TEXT}, headers=guess).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    reply = client.post("/classify", json={"text": TEXT}, headers={"Authorization": f"Bearer {KEY}"})
    assert reply.status_code == 200


def test_rate_memory_is_bounded() -> None:
    limit = RateLimit(2, Clock(), max_clients=10)
    for number in range(1000):
        assert limit.take(f"client {number}") == 0
    assert len(limit.buckets) == 10


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60), st.integers(1, 100))
def test_never_more_than_the_bucket_and_its_refill(steps: list[float], per_minute: int) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    granted = 0
    for step in steps:
        clock.now += step
        granted += limit.take("me") == 0
    assert granted <= per_minute + sum(steps) * per_minute / 60 + 1e-6


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_client_name(address: str | None, name: str) -> None:
    assert client_name(address) == name
