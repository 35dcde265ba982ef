"""What `edgewise serve` can be told: the address, the limits, the key."""

import ipaddress
import os
from dataclasses import dataclass, field

from runtimes.errors import InputError


def key_from_environment() -> str | None:
    """The key in EDGEWISE_API_KEY; None where it is unset or empty."""
    return os.environ.get("EDGEWISE_API_KEY") or None


@dataclass(frozen=True)
class ServeConfig:
    """Address, limits and key of the service.

    `max_batch` and `max_chars` can only tighten the model's own limits; None leaves those as they are.
    `queue` counts requests that wait while one is being answered. `api_key` never shows in a repr.
    Raises InputError for a value that cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: int = 1_048_576
    max_batch: int | None = None
    max_chars: int | None = None
    per_minute: int = 120
    queue: int = 32
    api_key: str | None = field(default_factory=key_from_environment, repr=False)
    open_without_key: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port} is outside 0 to 65535; choose one such as 8080")
        for name in ("max_body_bytes", "max_batch", "max_chars", "per_minute", "queue"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, and must be at least 1; leave it out for the default")
        if self.api_key is not None and not usable_key(self.api_key):
            raise InputError(
                "the API key must be at least 16 visible ASCII characters, without spaces; "
                'make one with python -c "import secrets; print(secrets.token_urlsafe())"'
            )


def usable_key(key: str) -> bool:
    """True where the key fits into a header as it is and cannot be guessed in a few tries."""
    return len(key) >= 16 and all("!" <= character <= "~" for character in key)


def is_loopback(host: str) -> bool:
    """True where only this machine can reach the address; a name other than localhost is not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_open_bind(config: ServeConfig) -> None:
    """Raises InputError where anybody in the network could use the model without a key."""
    check_bind(config.host, bool(config.api_key or config.open_without_key), "set EDGEWISE_API_KEY")


def check_bind(host: str, allowed: bool, remedy: str) -> None:
    """Raises InputError for an address that others reach, unless `allowed`. `remedy`: how to set a key."""
    if allowed or is_loopback(host):
        return
    raise InputError(
        f"{host} can be reached from other machines and no API key is set; {remedy}, "
        "or bind to 127.0.0.1, or say that it is meant to be open (--open-without-key)"
    )
