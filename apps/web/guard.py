"""What stands before every route: host, key, rate, type and size of a request; headers of an answer."""

import asyncio
import hmac
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.web.config import ServeConfig, is_loopback
from apps.web.rate import RateLimit, client_name
from apps.web.replies import Refused

log = logging.getLogger("edgewise.web")

BODY_SECONDS = 15.0  # a body that drips in slower than this holds a connection for nothing
CLASSIFY = "/classify"

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


def guarded(app: ASGIApp, config: ServeConfig, limiter: RateLimit) -> ASGIApp:
    """`app` behind all checks. What passes has an allowed host and, for /classify, a whole, small body."""

    async def admit(scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        check_host(headers.get("host"), config.host)
        if scope["path"] != CLASSIFY or scope["method"] != "POST":
            return receive
        check_caller(headers, scope.get("client"), config.api_key, limiter)
        check_type(headers)
        return await whole_body(headers, receive, config.max_body_bytes)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        return await answer(scope, receive, send, admit, app)

    return call


async def answer(
    scope: Scope,
    receive: Receive,
    send: Send,
    admit: Callable[[Scope, Receive], Awaitable[Receive]],
    app: ASGIApp,
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
        log.info("%s %s %d %.1f ms", scope["method"], logged_path(scope), status, milliseconds)


def logged_path(scope: Scope) -> str:
    """The path for the log: a route of ours or a dash. Others could carry a text, as could the query."""
    route = scope.get("route")
    known = getattr(route, "path", None) or (CLASSIFY if scope["path"] == CLASSIFY else "-")
    return str(known)


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
    seconds = math.ceil(limiter.take(name))
    if seconds:
        line = f"over {limiter.per_minute} requests a minute; try again in {seconds} s"
        raise Refused(429, line, {"Retry-After": str(seconds)})
    if not admitted:
        line = 'the API key is missing or wrong; send it as the header "Authorization: Bearer KEY"'
        raise Refused(401, line, {"WWW-Authenticate": "Bearer"})


def same_key(authorization: str | None, key: str) -> bool:
    """Compares in constant time, so that the answer's delay tells nothing about the key."""
    scheme, _, given = (authorization or "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())
    return same and scheme.lower() == "bearer"


def check_type(headers: Headers) -> None:
    """JSON only, not compressed. It also keeps other sites' forms out. Raises Refused (415)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, 'the body must be JSON; send the header "Content-Type: application/json"')
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a compressed body is not taken; send it without Content-Encoding")


async def whole_body(headers: Headers, receive: Receive, most: int) -> Receive:
    """Reads the body, at most `most` bytes, and gives a receive that hands it on in one piece.

    The bound holds for chunked bodies too: what counts is what came, not what was announced.
    Raises Refused: 413 too large, 408 too slow.
    """
    too_large = Refused(413, f"the body is over {most} bytes; send fewer or shorter texts at a time")
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise too_large
    parts: list[bytes] = []

    async def read() -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the connection closed before the body was complete; send it again")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > most:
                raise too_large

    try:
        await asyncio.wait_for(read(), BODY_SECONDS)
    except TimeoutError:
        line = f"the body took over {BODY_SECONDS:.0f} s to arrive; send it again"
        raise Refused(408, line, {"Connection": "close"}) from None
    return replay(b"".join(parts), receive)


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
