"""What lets a request in: the key and its rate, the type and size of the body, and no foreign page."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from apps.web import guard
from apps.web.callers import check_caller, check_origin
from apps.web.guard import check_host, check_type, whole_body
from apps.web.keys import Keys
from apps.web.rate import RateLimit
from apps.web.replies import Refused

OPEN = {"", "page", "look", "charts", "docs", "openapi.json", "health"}  # first parts that need no key
KNOWN = {"/points", "/series", "/alarms", "/webhooks", "/log", "/me", "/metrics", "/ingest"}
MAX_JSON_BYTES = 65_536
CSV = "text/csv"


def door(keys: Keys, limiter: RateLimit, max_points_bytes: int) -> guard.Admit:
    """Who may not come in is told so before the body is read."""

    async def admit(scope: Scope, receive: Receive) -> Receive:
        headers, method = Headers(scope=scope), scope["method"]
        parts = scope["path"].split("/")
        if parts[1:2] and parts[1] in OPEN:
            return receive
        key = check_caller(headers, scope.get("client"), keys, limiter)
        scope.setdefault("state", {})["key"] = key
        if method in ("GET", "HEAD"):
            return receive
        check_origin(headers)
        if method == "POST" and parts[-1] == "points":
            if kind_of(headers) != CSV:
                check_type(headers)
            return await whole_body(headers, receive, max_points_bytes, "send fewer points at a time")
        if method in ("POST", "PUT") and _has_body(headers):
            check_type(headers)
        return await whole_body(headers, receive, MAX_JSON_BYTES, "send less")

    return admit


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def kind_of(headers: Mapping[str, str]) -> str:
    """The content type, without what stands behind it."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def admit_socket(scope: Scope, keys: Keys, limiter: RateLimit, host: str) -> None:
    """Whether a WebSocket may be opened. Raises Refused, as for any request."""
    headers = Headers(scope=scope)
    check_host(headers.get("host"), host)
    check_origin(headers)
    key = check_caller(headers, scope.get("client"), keys, limiter)
    if not key.may("write"):
        raise Refused(403, f"this key may {key.role}, and write is needed; ask for such a key")
