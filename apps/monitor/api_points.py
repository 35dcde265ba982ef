"""POST /points, POST /series/{name}/points, and the WebSocket /ingest."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from apps.monitor import points
from apps.monitor.door import CSV, admit_socket, kind_of
from apps.monitor.points import Part, PointsRequest, SeriesPointsRequest
from apps.monitor.schemas import (
    CSV_EXAMPLE,
    POINTS_EXAMPLES,
    SERIES_CSV_EXAMPLE,
    SERIES_POINTS_EXAMPLES,
    TAKEN_EXAMPLE,
    TakenReply,
)
from apps.monitor.scoring import Taken
from apps.web.callers import bearer, needs, still
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused, Wants, clip, from_validation

if TYPE_CHECKING:
    from apps.monitor.service import Service

MOST_SOCKETS = 500
UNDER_WAY = 8  # frames of one WebSocket that may wait; it is read no further before one of them is stored
WANTED = Wants('{"points": [{"series": …, "time": …, "values": […]}]}', '{"points": […]}', "those of /docs")
Writer = Annotated[Key, Depends(needs("write"))]


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""

    @app.post(
        "/points",
        summary="Points of any number of series; the reply comes when they are on the disk",
        response_model=TakenReply,
        responses=errors(400, 401, 403, 408, 413, 415, 422, 429, 503) | {200: example(TAKEN_EXAMPLE)},
        dependencies=bearer(),
        openapi_extra=_body(PointsRequest, POINTS_EXAMPLES, CSV_EXAMPLE),
    )
    async def of_many(request: Request, key: Writer) -> dict[str, Any]:
        body, now = await request.body(), time.time()
        if kind_of(request.headers) == CSV:
            parts = points.of_csv(text_of(body), None, now)
        else:
            parts = points.of_many(read(PointsRequest, body), now)
        return await taken(service, parts, key)

    @app.post(
        "/series/{name}/points",
        summary="Points of one series; the reply comes when they are on the disk",
        response_model=TakenReply,
        responses=errors(400, 401, 403, 408, 413, 415, 422, 429, 503) | {200: example(TAKEN_EXAMPLE)},
        dependencies=bearer(),
        openapi_extra=_body(SeriesPointsRequest, SERIES_POINTS_EXAMPLES, SERIES_CSV_EXAMPLE),
    )
    async def of_one(name: str, request: Request, key: Writer) -> dict[str, Any]:
        points.check_name(name)
        body, now = await request.body(), time.time()
        if kind_of(request.headers) == CSV:
            parts = points.of_csv(text_of(body), name, now)
        else:
            parts = points.of_one(name, read(SeriesPointsRequest, body), now)
        return await taken(service, parts, key)

    @app.websocket("/ingest")
    async def ingest(socket: WebSocket) -> None:
        try:
            admit_socket(socket.scope, service.keys, service.limiter, service.config.host)
            if len(service.sockets) >= MOST_SOCKETS:
                line = f"{MOST_SOCKETS} WebSockets are open; send more series over one of them"
                raise Refused(503, line, {"Retry-After": "10"})
        except Refused as refused:
            await socket.send_denial_response(refused.reply())
            return
        await socket.accept()
        service.sockets.add(socket)
        try:
            await _talk(service, socket)
        finally:
            service.sockets.discard(socket)


async def taken(service: "Service", parts: Sequence[Part], key: Key, patient: bool = False) -> dict[str, Any]:
    """Stores the parts: the reply. Raises Refused."""
    check_parts(parts, key, service.config.request_points)
    began = time.perf_counter()
    found: Taken = await (service.intake.put_patiently if patient else service.intake.put)(parts)
    service.metrics.see("ingest_seconds", time.perf_counter() - began)
    for outcome in ("stored", "late", "repeated"):
        service.metrics.add("points", getattr(found, outcome), outcome=outcome)
    return {"stored": found.stored, "late": found.late, "repeated": found.repeated}


def check_parts(parts: Sequence[Part], key: Key, most: int) -> None:
    """Raises Refused: 403 for series that the key does not see, 422 for too many points."""
    count = sum(len(part.times) + part.repeated for part in parts)
    if count > most:
        raise Refused(422, f"{count} points in one request; send at most {most} at a time")
    for part in parts:
        if not key.sees(part.series):
            raise Refused(403, f"this key may not write series {clip(part.series)}; ask for one that may")


def read(kind: type[BaseModel], body: bytes | str) -> Any:
    """The request. Raises Refused: 400 not JSON, 422 not what is wanted."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise Refused(400, f"the body is not valid JSON; send {WANTED.body}") from None
        first: Any = found[0]
        raise from_validation([{**first, "loc": ("body", *first["loc"])}], WANTED) from None


def text_of(body: bytes) -> str:
    """Raises Refused (400) for what is not UTF-8."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 at byte {error.start}; send plain text") from None


async def _talk(service: "Service", socket: WebSocket) -> None:
    """Frames in, one reply each, in any order. Reads no faster than the points are stored.

    A key that was revoked gets one more reply, and is closed out.
    """
    places, running = asyncio.Semaphore(UNDER_WAY), set[asyncio.Task[None]]()

    async def answer(text: str) -> None:
        try:
            reply = await _answered(service, socket, text)
            await socket.send_text(json.dumps(reply))
            if reply.get("status") == 401:
                await socket.close(1008, "the key opens nothing any more")
        except (RuntimeError, WebSocketDisconnect):
            pass  # gone meanwhile; its points are stored all the same
        finally:
            places.release()

    try:
        while True:
            await places.acquire()
            task = asyncio.create_task(answer(await socket.receive_text()))
            running.add(task)
            task.add_done_callback(running.discard)
    except (WebSocketDisconnect, RuntimeError):  # closed from there, or from here
        pass
    except KeyError:  # a binary frame
        await socket.close(1003, "send text frames of JSON")
    if running:
        await asyncio.wait(running)


async def _answered(service: "Service", socket: WebSocket, text: str) -> dict[str, Any]:
    """The reply to one frame: what a request's would be, with the frame's own `id` where it has one."""
    id = None
    try:
        frame = json.loads(text)
        if not isinstance(frame, dict):
            raise Refused(422, f"a frame must be one JSON object; send {WANTED.body}")
        id = frame.pop("id", None)
        if not isinstance(id, str | int | None) or len(str(id)) > 64:
            id = None
            raise Refused(422, "a frame's id must be a number or a short text")
        key = still(socket.headers, service.keys)
        if service.limiter.take(f"key {key.id}", key.per_minute):
            raise Refused(429, "over the requests a minute; send larger batches, less often")
        parts = points.of_many(read(PointsRequest, json.dumps(frame)), time.time())
        return {"id": id, **await taken(service, parts, key, patient=True)}
    except Refused as refused:
        return {"id": id, "error": refused.line, "status": refused.status}
    except (ValueError, RecursionError):
        return {"id": id, "error": f"the frame is not valid JSON; send {WANTED.body}", "status": 400}


def _body(kind: type[BaseModel], examples: dict[str, Any], csv: str) -> dict[str, Any]:
    """The body in the OpenAPI document: JSON or CSV."""
    schema = kind.model_json_schema(ref_template="{model}")
    for name, inner in schema.pop("$defs", {}).items():
        schema = json.loads(json.dumps(schema).replace(json.dumps({"$ref": name}), json.dumps(inner)))
    content = {
        "application/json": {"schema": schema, "examples": examples},
        CSV: {"schema": {"type": "string"}, "example": csv},
    }
    return {"requestBody": {"required": True, "content": content}}
