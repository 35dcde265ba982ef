"""A client that sends points over one keep-alive connection; what is refused for now is sent again."""

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import InputError

TRIES = 30
TOGETHER = 2_000  # points of one request


class Sender:
    """Of one thread. `key`: an API key that may write, where the service asks for one."""

    def __init__(self, port: int, key: str | None = None, host: str = "127.0.0.1") -> None:
        self.connection = http.client.HTTPConnection(host, port, timeout=60)
        self.headers = {"Content-Type": "application/json"}
        if key is not None:
            self.headers["Authorization"] = f"Bearer {key}"

    def call(self, method: str, path: str, value: Any = None) -> tuple[int, Any, float]:
        """Status, reply, and seconds after which it may be tried again."""
        body = None if value is None else json.dumps(value).encode()
        self.connection.request(method, path, body, self.headers)
        reply = self.connection.getresponse()
        data = reply.read()
        return reply.status, json.loads(data), float(reply.headers.get("Retry-After") or 1)

    def ask(self, method: str, path: str, value: Any = None) -> Any:
        """The reply. Waits where the service is busy or not there yet. Raises InputError for a refusal."""
        told = "no answer"
        for _ in range(TRIES):
            try:
                status, reply, wait = self.call(method, path, value)
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                told, wait = repr(error), 0.5
            else:
                if status < 300:
                    return reply
                told = str(reply.get("error", status))
                if status not in (429, 503):
                    break
            time.sleep(wait)
        raise InputError(f"{method} {path}: {told}")

    def send(self, name: str, channels: Sequence[str], times: np.ndarray, values: np.ndarray) -> None:
        """Points of one series, (n,) and (n, channels); returns when they are on the disk."""
        for start in range(0, len(times), TOGETHER):
            rows = values[start : start + TOGETHER]
            told = [[None if np.isnan(one) else float(one) for one in row] for row in rows]
            body = {
                "channels": list(channels),
                "times": times[start : start + TOGETHER].tolist(),
                "values": told,
            }
            self.ask("POST", f"/series/{name}/points", body)
