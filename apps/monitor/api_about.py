"""/health, /metrics, /log: what runs here."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.responses import PlainTextResponse

from apps.monitor.schemas import HEALTH_EXAMPLE, LOG_EXAMPLE
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.metrics import TYPE

if TYPE_CHECKING:
    from apps.monitor.service import Service

Admin = Annotated[Key, Depends(needs("admin"))]


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""

    @app.get("/health", summary="What runs here, and its limits", responses={200: example(HEALTH_EXAMPLE)})
    async def health() -> dict[str, Any]:
        limits = ("request_points", "max_body_bytes", "max_series", "per_minute")
        return {
            "ready": service.intake.open,
            "uptime_s": round(time.monotonic() - service.started, 3),
            "model": service.scorer.model.describe(),
            "series": len(service.scorer.series),
            "waiting_points": service.intake.waiting,
            "charts": service.charts is not None,
            "key_required": service.keys.needed(),
            "limits": {name: getattr(service.config, name) for name in limits},
        }

    @app.get(
        "/metrics",
        summary="Figures for Prometheus; asks for an admin's key",
        response_class=PlainTextResponse,
        responses=errors(401, 403, 429),
        dependencies=bearer(),
    )
    async def metrics(key: Admin) -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(), media_type=TYPE)

    @app.get(
        "/log",
        summary="What was learned, found and changed, of all series",
        responses=errors(401, 403, 422, 429) | {200: example({"log": [LOG_EXAMPLE]})},
        dependencies=bearer(),
    )
    async def log(key: Admin, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> dict[str, Any]:
        query = "SELECT id, at, series, kind, who, detail FROM log ORDER BY id DESC LIMIT ?"
        lines = await service.read(lambda file: file.execute(query, [limit]).fetchall())
        return {"log": log_lines(lines)}


def log_lines(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Lines of the log in the words of the API."""
    names = ("id", "at", "series", "kind", "who")
    return [dict(zip(names, row[:5], strict=True)) | {"detail": json.loads(row[5])} for row in rows]
