"""What the tests of the answers' service do as its clients."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from apps.web.listening import listen

GRAIN = "The farmers said that the wheat harvest will rise. Corn prices fall in the new market."
OIL = "The refinery by the pipeline has oil in barrels. Drilling was said to rise after a strike."


def client_of(app: FastAPI, key: str | None = None) -> TestClient:
    client = TestClient(app, base_url="http://127.0.0.1:8080", client=("192.0.2.1", 4711))
    if key:
        client.headers["Authorization"] = f"Bearer {key}"
    return client


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The application on a free loopback port, in a thread."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def add(client: TestClient, text: str | bytes, name: str = "notes.txt", **query: Any) -> dict[str, Any]:
    """Uploads a document and waits for it; its job at the end."""
    reply = client.post("/documents", params={"name": name, **query}, content=text)
    assert reply.status_code == 202, reply.text
    return wait(client, reply.json()["jobs"][0])


def wait(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is over."""
    while job["state"] not in ("done", "failed"):
        job = client.get(f"/jobs/{job['id']}", params={"wait": 5}).json()
    return job


def line_of(reply: Any, status: int) -> str:
    """The line of an error reply, which must be JSON with nothing else in it, on one line."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert list(body) == ["error"] and "\n" not in body["error"]
    return body["error"]
