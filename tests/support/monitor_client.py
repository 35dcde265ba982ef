"""What the tests of the monitor do as its clients, and a receiver of its alerts."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tiny_detector import WARM_UP, waves

from apps.web.listening import listen

START = 1_700_000_000.0


def client_of(app: FastAPI, key: str | None = None) -> TestClient:
    client = TestClient(app, base_url="http://127.0.0.1:8080", client=("192.0.2.1", 4711))
    if key:
        client.headers["Authorization"] = f"Bearer {key}"
    return client


def rows(values: np.ndarray, first: int = 0, **more: Any) -> dict[str, Any]:
    """The body of POST /series/{name}/points for points that follow each other by a second."""
    return {"times": [START + first + at for at in range(len(values))], "values": values.tolist(), **more}


def send(client: Any, name: str, values: np.ndarray, first: int = 0, **more: Any) -> dict[str, Any]:
    reply = client.post(f"/series/{name}/points", json=rows(values, first, **more))
    assert reply.status_code == 200, reply.text
    return reply.json()


def learned(client: Any, name: str = "a", channels: int = 1, seed: int = 0) -> int:
    """Makes a series that has learned; how many points it has."""
    send(client, name, waves(WARM_UP, channels, seed))
    wait_for(lambda: client.get(f"/series/{name}").json()["state"] != "learning")
    return WARM_UP


def spiked(count: int, at: int, start: int, channels: int = 1, size: float = 8.0) -> np.ndarray:
    """Waves that go on from `start`, with six points `at` that are far off on the first channel."""
    values = waves(count, channels, start=start)
    values[at : at + 6, 0] += size
    return values


def wait_for(done: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `done` gives as soon as it is true."""
    until = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


def line_of(reply: Any, status: int) -> str:
    """The line of an error reply, which must be JSON with nothing else in it, on one line."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert list(body) == ["error"] and "\n" not in body["error"] and len(body["error"]) < 300
    return body["error"]


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The application on a free loopback port, in a thread."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


class Receiver:
    """A host that takes alerts: `answers` are the statuses that it gives, the last one again and again."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers or (200,))
        self.got: list[tuple[dict[str, str], bytes, float]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body, time.time()))
                answers = receiver.answers
                status = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body, _ in list(self.got)]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
