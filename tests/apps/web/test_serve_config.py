"""What the service may be told, and where it refuses to bind."""

import socket
from typing import Any

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
