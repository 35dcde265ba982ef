"""What stands before every route: host, key, rate, type and size of a request; headers of an answer."""

import asyncio
import hmac
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.web.config import is_loopback
from apps.web.rate import RateLimit, client_name
from apps.web.replies import Refused

log = logging.getLogger("edgewise.web")

BODY_SECONDS = 15.0  # a body that drips in slower than this holds a connection for nothing

# What lets a request in: it raises Refused, or gives the receive that the application is to read from.
Admit = Callable[[Scope, Receive], Awaitable[Receive]]

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def guarded(app: ASGIApp, host: str, admit: Admit, known: Container[str]) -> ASGIApp:
    """`app` behind all checks. What passes has an allowed host, and `admit` has let it in.

    `known`: first parts of the paths that may stand in the log as they are, such as "/classify".
    """

    async def checked(scope: Scope, receive: Receive) -> Receive:
        check_host(Headers(scope=scope).get("host"), host)
        return await admit(scope, receive)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        return await answer(scope, receive, send, checked, app, known)

    return call


def door(path: str, key: str | None, limiter: RateLimit, max_body_bytes: int) -> Admit:
    """Lets POST to `path` in with the key, within the rate, and with a whole, small body of JSON."""

    async def admit(scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if scope["path"] != path or scope["method"] != "POST":
            return receive
        check_caller(headers, scope.get("client"), key, limiter)
        check_type(headers)
        return await whole_body(headers, receive, max_body_bytes)

    return admit


async def answer(
    scope: Scope,
    receive: Receive,
    send: Send,
    admit: Admit,
    app: ASGIApp,
    known: Container[str],
) -> None:
    """Lets one request in, adds the headers to what comes back, and writes its line in the log."""
    begin, status = time.perf_counter(), 0

    async def send_with_headers(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            add_headers(MutableHeaders(scope=message))
        await send(message)

    try:
        await app(scope, await admit(scope, receive), send_with_headers)
    except Refused as refused:
        await refused.reply()(scope, receive, send_with_headers)
    except Exception as error:
        log.error("internal error: %s", where_it_broke(error))
        if status:
            raise
        line = "the service failed inside; its log names the place, and the request can be sent again"
        await Refused(500, line).reply()(scope, receive, send_with_headers)
    finally:
        milliseconds = (time.perf_counter() - begin) * 1000
        log.info("%s %s %d %.1f ms", scope["method"], logged_path(scope, known), status, milliseconds)


def logged_path(scope: Scope, known: Container[str]) -> str:
    """The path for the log: a route of ours or a dash. Others could carry a text, as could the query."""
    first = "/" + scope["path"].split("/")[1] if "/" in scope["path"] else ""
    path = getattr(scope.get("route"), "path", None) or (first if first in known else "-")
    return str(path)


def where_it_broke(error: Exception) -> str:
    """Class, file and line of an error, without its message, which could repeat a text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    return f"{type(error).__name__} at {place}"


def add_headers(headers: MutableHeaders) -> None:
    """The security headers, and no caching of answers unless the route said otherwise."""
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")


def check_host(host: str | None, bound: str) -> None:
    """On loopback, only a loopback name may be asked for: a web page elsewhere that points its own name at
    127.0.0.1 (DNS rebinding) is refused. Raises Refused (421)."""
    if not is_loopback(bound):
        return
    name = (host or "").rsplit(":", 1)[0] if not (host or "").endswith("]") else (host or "")
    if not is_loopback(name.strip("[]").lower()):
        raise Refused(421, "this service answers on this machine only; ask for localhost or 127.0.0.1")


def check_caller(
    headers: Headers, client: tuple[str, int] | None, key: str | None, limiter: RateLimit
) -> None:
    """Key and rate. A holder of the key is counted by key, everybody else, wrong keys too, by address.

    Raises Refused: 401 without the key, 429 over the rate.
    """
    admitted = key is None or same_key(headers.get("authorization"), key)
    name = "key" if key is not None and admitted else client_name(client[0] if client else None)
    check_rate(limiter, name)
    if not admitted:
        raise wrong_key()


def check_rate(limiter: RateLimit, name: str, per_minute: int | None = None) -> None:
    """Takes one request of that name, whose own rate may differ. Raises Refused (429) over the rate."""
    seconds = math.ceil(limiter.take(name, per_minute))
    if seconds:
        line = f"over {per_minute or limiter.per_minute} requests a minute; try again in {seconds} s"
        raise Refused(429, line, {"Retry-After": str(seconds)})


def wrong_key() -> Refused:
    """The refusal (401) of everybody whose key is missing, wrong or revoked: one line for all."""
    line = 'the API key is missing or wrong; send it as the header "Authorization: Bearer KEY"'
    return Refused(401, line, {"WWW-Authenticate": "Bearer"})


def given_key(authorization: str | None) -> str:
    """What stands behind "Bearer", or nothing."""
    scheme, _, given = (authorization or "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def same_key(authorization: str | None, key: str) -> bool:
    """Compares in constant time, so that the answer's delay tells nothing about the key."""
    return hmac.compare_digest(given_key(authorization).encode("utf-8", "replace"), key.encode())


def check_type(headers: Headers) -> None:
    """JSON only, not compressed. It also keeps other sites' forms out. Raises Refused (415)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, 'the body must be JSON; send the header "Content-Type: application/json"')
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a compressed body is not taken; send it without Content-Encoding")


async def whole_body(
    headers: Headers, receive: Receive, most: int, less: str = "send fewer or shorter texts at a time"
) -> Receive:
    """Reads the body, at most `most` bytes, and gives a receive that hands it on in one piece.

    Raises Refused: 413 too large, 408 too slow.
    """
    parts: list[bytes] = []
    bounded = bounded_body(headers, receive, most, BODY_SECONDS, less)
    more = True
    while more:
        message = await bounded()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the connection closed before the body was complete; send it again")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return replay(b"".join(parts), receive)


def bounded_body(
    headers: Headers,
    receive: Receive,
    most: int,
    seconds: float,
    less: str = "send fewer or shorter texts at a time",
) -> Receive:
    """A receive that hands on at most `most` bytes of body and within `seconds`, and then raises Refused.

    The bounds hold for chunked bodies too: what counts is what came, not what was announced.
    Raises Refused at once where the announced length is too large (413).
    """
    too_large = Refused(413, f"the body is over {most} bytes; {less}")
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise too_large
    size, complete, until = 0, False, time.monotonic() + seconds

    async def bounded() -> Message:
        nonlocal size, complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            line = f"the body took over {seconds:.0f} s to arrive; send it again"
            raise Refused(408, line, {"Connection": "close"}) from None
        except asyncio.CancelledError:  # the server stops, and does not wait for slow bodies for ever
            line = "the service is stopping; send it again in a moment"
            raise Refused(503, line, {"Connection": "close"}) from None
        size += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if size > most:
            raise too_large
        return message

    return bounded


def replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives `body` once and then goes on with the real one."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
