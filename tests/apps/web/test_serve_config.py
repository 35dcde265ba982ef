"""What the service may be told, and where it refuses to bind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.web.config import ServeConfig, refuse_open_bind
from apps.web.server import serve
from runtimes.errors import InputError

# Binding


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "models.example"])
def test_open_bind_needs_a_key_or_a_word(host: str) -> None:
    with pytest.raises(InputError, match="can be reached from other machines and no API key is set"):
        refuse_open_bind(ServeConfig(host=host, api_key=None))
    refuse_open_bind(ServeConfig(host=host, api_key="correct-horse-battery"))
    refuse_open_bind(ServeConfig(host=host, api_key=None, open_without_key=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    refuse_open_bind(ServeConfig(host=host, api_key=None))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"port": 70_000}, "port 70000 is outside"),
        ({"queue": 0}, "queue is 0, and must be at least 1"),
        ({"max_chars": -1}, "max_chars is -1"),
        ({"per_minute": 0}, "per_minute is 0"),
        ({"api_key": "short"}, "the API key must be at least 16"),
        ({"api_key": "with some spaces in it"}, "the API key must be at least 16"),
    ],
)
def test_bad_config(values: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        ServeConfig(**values)


def test_a_port_in_use_is_one_clear_line(model: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port} .*choose another --port"):
            serve(model, ServeConfig(port=port, api_key=None))


SERVE = """
import sys
sys.path.insert(0, {folder!r})
from conftest import WordCounter
from apps.web.config import ServeConfig
from apps.web.server import serve
serve(WordCounter(), ServeConfig(port=0))
"""


def test_serve_says_where_it_is_logs_no_text_and_stops_at_an_interrupt() -> None:
    """In a process of its own, as a user starts it."""
    program = SERVE.format(folder=str(Path(__file__).parent))
    environment = {name: value for name, value in os.environ.items() if name != "EDGEWISE_API_KEY"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr
            url = process.stderr.readline().split("open ")[1].strip()
            reply = httpx.post(f"{url}classify?text=xyzzy", json={"text": "xyzzy"}, trust_env=False)
            assert reply.status_code == 200
            assert "server" not in reply.headers
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert "POST /classify 200" in rest
    assert "xyzzy" not in rest
    assert "Traceback" not in rest
