"""What the OpenAPI document says of errors and examples."""

from typing import Any

from apps.web.schemas import ErrorReply

_SAID = {
    400: "Not JSON, or no readable upload",
    401: "API key missing, wrong or revoked",
    403: "The key's role does not suffice",
    404: "Not there, or not for this key",
    408: "Body too slow",
    409: "The name is taken",
    413: "Body too large",
    415: "Not application/json",
    422: "Not a request that can be done",
    429: "Over the rate; Retry-After says how long",
    503: "Queue full; Retry-After says how long",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route."""
    return {status: {"model": ErrorReply, "description": _SAID[status]} for status in statuses}


def example(value: dict[str, Any]) -> dict[str, Any]:
    """An answer's example in OpenAPI's form. Beside the schema, because pydantic would sort its keys."""
    return {"content": {"application/json": {"example": value}}}
