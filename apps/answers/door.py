"""What lets a request in: the key and its rate, the type and size of the body, and no foreign page."""

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from apps.web import guard
from apps.web.callers import check_caller, check_origin
from apps.web.guard import bounded_body, check_type, whole_body
from apps.web.keys import Keys
from apps.web.rate import RateLimit

OPEN = {"", "page", "look", "docs", "openapi.json", "health"}  # first parts of paths that need no key
KNOWN = {"/ask", "/documents", "/collections", "/jobs", "/metrics"}
MAX_JSON_BYTES = 65_536
UPLOAD_SECONDS = 300.0


def door(keys: Keys, limiter: RateLimit, max_upload_bytes: int) -> guard.Admit:
    """Who may not come in is told so before the body is read."""

    async def admit(scope: Scope, receive: Receive) -> Receive:
        headers, method = Headers(scope=scope), scope["method"]
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if first in OPEN:
            return receive
        key = check_caller(headers, scope.get("client"), keys, limiter)
        scope.setdefault("state", {})["key"] = key
        if method in ("GET", "HEAD"):
            return receive
        check_origin(headers)
        if first == "documents" and method in ("POST", "PUT"):
            less = "send fewer or smaller files at a time"
            return bounded_body(headers, receive, max_upload_bytes, UPLOAD_SECONDS, less)
        if method == "POST":
            check_type(headers)
        return await whole_body(headers, receive, MAX_JSON_BYTES)

    return admit
