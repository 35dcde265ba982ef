"""/webhooks: list, make, delete, what was sent."""

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Path, Query

from apps.monitor.points import check_name
from apps.monitor.schemas import DELIVERY_EXAMPLE, WEBHOOK_EXAMPLE, WebhookRequest
from apps.monitor.scoring import write_log
from apps.monitor.sending import addresses, check_url
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused, clip
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.monitor.service import Service

Admin = Annotated[Key, Depends(needs("admin"))]
Id = Annotated[str, Path(max_length=100, description="The webhook's id.")]
_WEBHOOKS = (
    "SELECT id, url, series, cool_down_s, made, (SELECT count(*) FROM deliveries WHERE webhook = w.id AND "
    "state = 'waiting') FROM webhooks w ORDER BY made"
)
_DELIVERIES = (
    "SELECT id, alarm, series, kind, state, attempts, made, due, ended, said FROM deliveries "
    "WHERE webhook = ? ORDER BY made DESC LIMIT ?"
)
_SENT = ("id", "alarm", "series", "kind", "state", "attempts", "made", "due", "ended", "said")


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""
    _making(app, service)
    _looking(app, service)


def _looking(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/webhooks",
        summary="Where alerts go",
        responses=errors(401, 403, 429) | {200: example({"webhooks": [WEBHOOK_EXAMPLE]})},
        dependencies=bearer(),
    )
    async def webhooks(key: Admin) -> dict[str, Any]:
        found = await service.read(lambda file: file.execute(_WEBHOOKS).fetchall())
        names = ("id", "url", "series", "cool_down_s", "made", "waiting")
        told = [dict(zip(names, row, strict=True)) for row in found]
        return {"webhooks": [one | {"series": one["series"] and json.loads(one["series"])} for one in told]}

    @app.get(
        "/webhooks/{id}/deliveries",
        summary="What was sent, is waiting, or was given up",
        responses=errors(401, 403, 404, 422, 429) | {200: example({"deliveries": [DELIVERY_EXAMPLE]})},
        dependencies=bearer(),
    )
    async def deliveries(
        id: Id, key: Admin, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> dict[str, Any]:
        found = await service.read(lambda file: file.execute(_DELIVERIES, [id, limit]).fetchall())
        known = await service.read(
            lambda file: file.execute("SELECT 1 FROM webhooks WHERE id = ?", [id]).fetchone()
        )
        if known is None:
            raise _no_such(id)
        return {"deliveries": [dict(zip(_SENT, row, strict=True)) for row in found]}


def _making(app: FastAPI, service: "Service") -> None:
    @app.post(
        "/webhooks",
        summary="Have alerts sent to a URL; the secret is told this once",
        status_code=201,
        responses=errors(400, 401, 403, 415, 422, 429)
        | {201: example(WEBHOOK_EXAMPLE | {"secret": "nDa0…"})},
        dependencies=bearer(),
    )
    async def make(request: WebhookRequest, key: Admin) -> dict[str, Any]:
        await _check(service, request)
        id, now = secrets.token_hex(8), time.time()
        secret = request.secret or secrets.token_urlsafe(32)

        def work() -> None:
            with service.scorer.transaction() as file:
                if file.execute("SELECT count(*) FROM webhooks").fetchone()[0] >= service.config.max_webhooks:
                    raise Refused(422, f"{service.config.max_webhooks} webhooks are the most; delete one")
                series = None if request.series is None else json.dumps(request.series)
                row = [id, request.url, secret, series, request.cool_down_s, now]
                file.execute("INSERT INTO webhooks VALUES (?, ?, ?, ?, ?, ?)", row)
                host = urlsplit(request.url).hostname
                write_log(file, None, "webhook made", key.name, {"webhook": id, "host": host})

        await service.intake.do(work)
        told = {"id": id, "url": request.url, "series": request.series, "cool_down_s": request.cool_down_s}
        return told | {"made": now, "waiting": 0, "secret": secret}

    @app.delete(
        "/webhooks/{id}",
        summary="Send nothing more there",
        responses=errors(401, 403, 404, 429) | {200: example({"deleted": "5b1d0c6a2e9f4b77"})},
        dependencies=bearer(),
    )
    async def delete(id: Id, key: Admin) -> dict[str, str]:
        def work() -> None:
            with service.scorer.transaction() as file:
                if not file.execute("DELETE FROM webhooks WHERE id = ?", [id]).rowcount:
                    raise _no_such(id)
                write_log(file, None, "webhook deleted", key.name, {"webhook": id})

        await service.intake.do(work)
        return {"deleted": id}


async def _check(service: "Service", request: WebhookRequest) -> None:
    """Raises Refused (422) for a URL to which nothing may be sent."""
    for name in request.series or ():
        check_name(name)
    try:
        parts = urlsplit(check_url(request.url))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        await asyncio.to_thread(addresses, parts.hostname or "", port, service.config.private_webhooks)
    except InputError as error:
        raise Refused(422, str(error)) from None


def _no_such(id: str) -> Refused:
    return Refused(404, f"there is no webhook {clip(id)}; GET /webhooks lists them")
