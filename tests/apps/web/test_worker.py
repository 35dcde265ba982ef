"""Crowds: none lost, the queue bounded, the event loop free."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from apps.web.config import ServeConfig
from apps.web.replies import Refused
from apps.web.server import create_app
from apps.web.worker import Worker

TEXT = "The striker scored two goals in the final."


# Crowds


async def together(
    app: FastAPI, number: int, refused: int, release: Callable[[], None]
) -> list[httpx.Response]:
    """`number` requests at once; `release` is called when `refused` of them have their answer."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        asked = [
            asyncio.create_task(client.post("/classify", json={"texts": [TEXT] * (1 + index % 2)}))
            for index in range(number)
        ]
        while sum(task.done() for task in asked) < refused:
            await asyncio.sleep(0.01)
        health = await client.get("/health")
        assert health.status_code == 200  # the loop is free while the model is at work
        release()
        return await asyncio.gather(*asked)


def test_many_at_once_none_lost(model: Any, config: ServeConfig) -> None:
    app = create_app(model, dataclasses.replace(config, queue=200))
    replies = asyncio.run(together(app, 150, 0, lambda: None))
    assert [reply.status_code for reply in replies] == [200] * 150
    assert [len(reply.json()["answers"]) for reply in replies] == [1, 2] * 75
    assert len(model.threads) == 1


def test_full_queue_is_refused_and_the_rest_answered(
    model: Any, config: ServeConfig, client_of: Any, error_of: Any
) -> None:
    model.go.clear()
    app = create_app(model, config)  # one at work, three waiting
    replies = asyncio.run(together(app, 10, 6, model.go.set))
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(200), statuses.count(503)) == (4, 6)
    refused = next(reply for reply in replies if reply.status_code == 503)
    assert refused.headers["Retry-After"] == "1"
    assert error_of(refused) == "the queue of the model is full; try again in a second"
    assert model.calls == 4
    assert client_of(app).post("/classify", json={"text": TEXT}).status_code == 200


def test_worker_gives_places_back_after_errors_and_refuses_when_closed() -> None:
    async def use() -> None:
        worker = Worker(queue=0)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await worker.run(lambda: 1 / 0)
        assert await worker.run(lambda: 7) == 7
        worker.close()
        with pytest.raises(Refused) as refused:
            await worker.run(lambda: 7)
        assert refused.value.status == 503

    asyncio.run(use())
