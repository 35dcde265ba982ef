"""Who calls: the key and its rate, what its role may do, and no foreign page."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers

from apps.web.guard import check_rate, given_key, wrong_key
from apps.web.keys import NOBODY, Key, Keys, Role
from apps.web.rate import RateLimit, client_name
from apps.web.replies import Refused


def check_caller(headers: Headers, client: tuple[str, int] | None, keys: Keys, limiter: RateLimit) -> Key:
    """The key. Each is counted for itself, wrong ones by address. Raises Refused: 401, 429."""
    key = _found(headers, keys)
    if key is not None:
        check_rate(limiter, f"key {key.id}", key.per_minute)
        return key
    check_rate(limiter, client_name(client[0] if client else None))
    if keys.needed():
        raise wrong_key()
    return NOBODY


def still(headers: Headers, keys: Keys) -> Key:
    """The key of a connection that stays open, looked up anew and not counted.

    Raises Refused (401) where it was revoked, or where the first one was made meanwhile.
    """
    key = _found(headers, keys)
    if key is None and keys.needed():
        raise wrong_key()
    return key or NOBODY


def _found(headers: Headers, keys: Keys) -> Key | None:
    text = given_key(headers.get("authorization"))
    return keys.find(text) if text else None


def check_origin(headers: Headers) -> None:
    """A page of another site may not write here: where no key is asked for, its form would be let in.

    Raises Refused (403).
    """
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Refused(403, "a page of another site may not write here; use the page of this service")


def needs(role: Role) -> Callable[[Request], Awaitable[Key]]:
    """A dependency: the caller's key, where it has at least that role. Raises Refused (403)."""

    async def check(request: Request) -> Key:
        key: Key = request.state.key
        if not key.may(role):
            raise Refused(403, f"this key may {key.role}, and {role} is needed; ask for such a key")
        return key

    return check


def bearer() -> list[Any]:
    """Says in the OpenAPI document that a key is sent; the door checks it."""
    return [Depends(HTTPBearer(auto_error=False))]
