"""POST /ask, GET /health, GET /metrics."""

import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, Depends, FastAPI
from fastapi.responses import PlainTextResponse

from apps.answers.models import Ask
from apps.answers.schemas import (
    ANSWER_EXAMPLE,
    ASK_EXAMPLES,
    HEALTH_EXAMPLE,
    AskReply,
    AskRequest,
    HealthReply,
    ask_reply,
)
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.metrics import TYPE
from apps.web.replies import Refused
from runtimes.ask import check_question
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.answers.service import Service


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""

    @app.post(
        "/ask",
        summary="Ask a question about the documents of a collection",
        response_model=AskReply,
        responses=errors(400, 401, 404, 408, 413, 415, 422, 429, 503) | {200: example(ANSWER_EXAMPLE)},
        dependencies=bearer(),
    )
    async def ask(
        request: Annotated[AskRequest, Body(openapi_examples=ASK_EXAMPLES)],
        key: Annotated[Key, Depends(needs("read"))],
    ) -> dict[str, Any]:
        began = time.perf_counter()
        one = asked(request, service, key)
        answered = await service.batcher.ask(one)
        seconds = time.perf_counter() - began
        service.metrics.see("question_seconds", seconds)
        service.metrics.add("questions", outcome=outcome(bool(answered.found), answered.ask_back))
        return ask_reply(answered, seconds * 1000)

    @app.get(
        "/health",
        summary="What runs here, and its limits",
        response_model=HealthReply,
        responses={200: example(HEALTH_EXAMPLE)},
    )
    async def health() -> dict[str, Any]:
        names = ("max_upload_bytes", "per_minute", "queue", "uploads")
        return {
            "ready": service.batcher.open,
            "uptime_s": round(time.monotonic() - service.started, 3),
            "models": service.models.describe(),
            "limits": {name: getattr(service.config, name) for name in names},
            "key_required": service.keys.needed(),
        }

    @app.get(
        "/metrics",
        summary="Figures for Prometheus; asks for an admin's key",
        response_class=PlainTextResponse,
        responses=errors(401, 403, 429),
        dependencies=bearer(),
    )
    async def metrics(key: Annotated[Key, Depends(needs("admin"))]) -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(), media_type=TYPE)


def asked(request: AskRequest, service: "Service", key: Key) -> Ask:
    """The question, checked before it waits. Raises Refused: 404 no such collection, 422."""
    collection = service.shelf.check(key, request.collection)
    for part in (request.question, *request.where, *request.where.values()):
        if any("\ud800" <= character <= "\udfff" for character in part):
            raise Refused(422, "the question holds half a character (a lone surrogate); send whole ones")
    try:
        question = check_question(request.question)
    except InputError as error:
        raise Refused(422, str(error)) from error
    return Ask(question, collection, request.where, request.k)


def outcome(found: bool, ask_back: str | None) -> str:
    return "asked_back" if ask_back else "answered" if found else "not_found"
