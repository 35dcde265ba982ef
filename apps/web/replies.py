"""Errors on the wire: one JSON line, {"error": "what, where, what to do next"}."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request that is answered with an error status and one line."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = dict(headers or {})

    def reply(self) -> JSONResponse:
        """The response that says it."""
        return JSONResponse({"error": self.line}, status_code=self.status, headers=self.headers)


def clip(name: object, longest: int = 40) -> str:
    """A name out of a request, quoted, on one line and bounded, so that it can stand in an error."""
    text = str(name)
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return ascii(shown).replace("'", '"')


@dataclass(frozen=True)
class Wants:
    """What a route wants to be sent, in the words of its error lines."""

    body: str
    bodies: str
    fields: str


ANYTHING = Wants("what /docs shows", "what /docs shows", "those that /docs shows")


def add_error_handlers(app: FastAPI, wants: Mapping[str, Wants]) -> None:
    """Every error in our own words, as one JSON line. `wants`: path → what it takes."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.reply()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return from_validation(error.errors(), wants.get(request.url.path, ANYTHING)).reply()

    async def status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        wanted = wants.get(request.url.path, ANYTHING)
        return from_status(error.status_code, request.url.path, error.headers, wanted).reply()

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, status)


def from_status(
    status: int, path: str, headers: Mapping[str, str] | None = None, wants: Wants = ANYTHING
) -> Refused:
    """The line for an error that the router itself found (no such path, wrong method, unreadable body)."""
    if status == 404:
        return Refused(404, f"there is no {clip(path)} here; see /docs for what there is")
    if status == 405:
        allowed = (headers or {}).get("Allow", "another method")
        return Refused(405, f"{clip(path)} does not take this method; use {allowed}", headers)
    if status == 400:
        return Refused(400, f"the body cannot be read as JSON in UTF-8; send {wants.body}")
    return Refused(status, f"the request to {clip(path)} failed with status {status}; see /docs", headers)


def from_validation(errors: Sequence[Mapping[str, Any]], wants: Wants = ANYTHING) -> Refused:
    """The line for a body that is not what the schema says. Only the first fault is told.

    The values of the request are never repeated: they may be somebody's text.
    """
    fault = errors[0]
    place = fault["loc"][1:]
    if fault["type"] == "json_invalid":
        why = fault.get("ctx", {}).get("error", "not JSON")
        return Refused(400, f"the body is not valid JSON at character {place[0]} ({why}); send {wants.body}")
    if not place:
        return Refused(422, f"the body must be one JSON object; send {wants.bodies}")
    if fault["type"] == "extra_forbidden":
        return Refused(422, f"unknown field {clip(place[0])}; use {wants.fields}")
    where = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in place)
    said = fault["msg"][:1].lower() + fault["msg"][1:]
    return Refused(422, f'the field "{where}" is wrong: {said}; see /docs for an example')
