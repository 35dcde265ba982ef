"""/series: list, points, scores, explanation, threshold, rules, refit, log, delete."""

import asyncio
import json
import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Path, Query

from apps.monitor import judging, live, refitting, rows
from apps.monitor.api_about import log_lines
from apps.monitor.live import Live
from apps.monitor.schemas import (
    COLUMNS_EXAMPLE,
    EXPLAIN_EXAMPLE,
    LOG_EXAMPLE,
    PREVIEW_EXAMPLE,
    SERIES_EXAMPLE,
    RefitRequest,
    RulesRequest,
    SeriesListReply,
    SeriesReply,
    ThresholdRequest,
)
from apps.monitor.scoring import write_log
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused, clip
from runtimes.alarms import AlarmRules

if TYPE_CHECKING:
    from apps.monitor.service import Service

MOST = 5_000  # points of one reply
HELD_BACK = ("shares", "parts")  # /explain tells them of one point
Reader = Annotated[Key, Depends(needs("read"))]
Admin = Annotated[Key, Depends(needs("admin"))]
Name = Annotated[str, Path(max_length=100, description="The series.")]
Since = Annotated[float, Query(description="Unix seconds: only points after it.", allow_inf_nan=False)]
Until = Annotated[float, Query(description="Unix seconds: only points up to it.", allow_inf_nan=False)]
Limit = Annotated[int, Query(ge=1, le=MOST, description="The newest so many.")]
LOG = (  # of a series, not of one of the same name that was deleted
    "SELECT id, at, series, kind, who, detail FROM log WHERE series = ? AND id > "
    "(SELECT coalesce(max(id), 0) FROM log WHERE series = ? AND kind = 'deleted') ORDER BY id DESC LIMIT ?"
)
THRESHOLD = {"threshold": 1.94, "learned": 1.94, "chosen": None, "how": "pot 0.0001", "rules": {
    "min_points": 3, "cool_down_s": 600.0, "merge_gap_s": 60.0}}  # fmt: skip
_JUDGED = {"alarmed": 0.0, "found": 0.9, "vus_pr": 0.79}
REFIT = {
    "points": 4096,
    "held_out": 1229,
    "kept": "old",
    "why": "the new one is no better: found 90% and 90%, …",
    "old": _JUDGED,
    "new": _JUDGED,
    "old_threshold": 1.94,
    "new_threshold": 1.97,
}


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""
    for part in (_lists, _columns, _judging, _setting, _changing):
        part(app, service)


def _lists(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/series",
        summary="The series that your key sees, with their state",
        response_model=SeriesListReply,
        responses=errors(401, 429) | {200: example({"series": [SERIES_EXAMPLE], "role": "write"})},
        dependencies=bearer(),
    )
    async def series(key: Reader) -> dict[str, Any]:
        found = [service.scorer.series.get(name) for name in sorted(service.scorer.series)]
        return {
            "series": [service.told(one) for one in found if one and key.sees(one.name)],
            "role": key.role,
        }

    @app.get(
        "/series/{name}",
        summary="One series",
        response_model=SeriesReply,
        responses=errors(401, 404, 429) | {200: example(SERIES_EXAMPLE)},
        dependencies=bearer(),
    )
    async def one(name: Name, key: Reader) -> dict[str, Any]:
        return service.told(service.live(key, name))


def _columns(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/series/{name}/points",
        summary="Its points, with scores and what was expected, by column",
        responses=errors(401, 404, 422, 429) | {200: example(COLUMNS_EXAMPLE)},
        dependencies=bearer(),
    )
    async def points(
        name: Name, key: Reader, since: Since = -1.0, until: Until = 1e12, limit: Limit = 1000
    ) -> dict[str, Any]:
        found = service.live(key, name)
        columns = await service.read(lambda file: rows.read(file, found.id, since, until, limit))
        return {"channels": list(found.channels)} | {k: v for k, v in columns.items() if k not in HELD_BACK}

    @app.get(
        "/series/{name}/scores",
        summary="Its scores alone",
        responses=errors(401, 404, 422, 429)
        | {200: example({"times": [1767225600.0], "scores": [0.4], "threshold": 1.94})},
        dependencies=bearer(),
    )
    async def scores(name: Name, key: Reader, since: Since = -1.0, limit: Limit = MOST) -> dict[str, Any]:
        found = service.live(key, name)
        times, told = await service.read(lambda file: rows.scored(file, found.id, since, limit))
        return {"times": times.tolist(), "scores": told.tolist(), "threshold": found.threshold}

    @app.get(
        "/series/{name}/explain",
        summary="Why the point at a time scored as it did: channels, expected against seen, and around it",
        responses=errors(401, 404, 422, 429) | {200: example(EXPLAIN_EXAMPLE)},
        dependencies=bearer(),
    )
    async def explain(
        name: Name, key: Reader, at: Annotated[float, Query(description="Unix seconds.", ge=0, le=1e11)]
    ) -> dict[str, Any]:
        found = service.live(key, name)
        return await service.read(lambda file: judging.explain(file, found, at))

    @app.get(
        "/series/{name}/log",
        summary="What was learned, found and changed",
        responses=errors(401, 404, 422, 429) | {200: example({"log": [LOG_EXAMPLE]})},
        dependencies=bearer(),
    )
    async def log(
        name: Name, key: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> dict[str, Any]:
        found = service.live(key, name)
        lines = await service.read(lambda file: file.execute(LOG, [found.name, found.name, limit]).fetchall())
        return {"log": log_lines(lines)}


def _judging(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/series/{name}/threshold",
        summary="What score makes an alarm here, and the alarm rules",
        responses=errors(401, 404, 429) | {200: example(THRESHOLD)},
        dependencies=bearer(),
    )
    async def threshold(name: Name, key: Reader) -> dict[str, Any]:
        return _threshold(service.live(key, name))

    @app.get(
        "/series/{name}/threshold/preview",
        summary="What another threshold would have done to the past",
        responses=errors(401, 404, 422, 429) | {200: example(PREVIEW_EXAMPLE)},
        dependencies=bearer(),
    )
    async def preview(
        name: Name,
        key: Reader,
        threshold: Annotated[float, Query(gt=0, le=1e6, allow_inf_nan=False)],
        days: Annotated[float, Query(gt=0, le=3650, description="Counted from the newest point.")] = 7.0,
    ) -> dict[str, Any]:
        found = service.live(key, name)
        return await service.read(lambda file: judging.preview(file, found, threshold, days))


def _setting(app: FastAPI, service: "Service") -> None:
    @app.put(
        "/series/{name}/threshold",
        summary="Set the threshold, from the next point on: a number, or what known anomalies say is best",
        responses=errors(400, 401, 403, 404, 415, 422, 429) | {200: example(THRESHOLD)},
        dependencies=bearer(),
    )
    async def set_threshold(name: Name, request: ThresholdRequest, key: Admin) -> dict[str, Any]:
        found = service.live(key, name)
        chosen, how = request.threshold, _how(request)
        if request.windows is not None:
            windows = request.windows
            chosen = await service.read(lambda file: judging.labelled(file, found, windows))

        def work() -> None:
            with service.scorer.transaction() as file:
                file.execute("UPDATE series SET threshold = ? WHERE id = ?", [chosen, found.id])
                detail = {"before": found.chosen, "now": chosen} | how
                write_log(file, name, "threshold", key.name, detail)
            service.scorer.series[name].chosen = chosen

        await service.intake.do(work)
        return _threshold(service.live(key, name))

    @app.put(
        "/series/{name}/rules",
        summary="Set the alarm rules, from the next point on",
        responses=errors(400, 401, 403, 404, 415, 422, 429) | {200: example(THRESHOLD)},
        dependencies=bearer(),
    )
    async def set_rules(name: Name, request: RulesRequest, key: Admin) -> dict[str, Any]:
        found = service.live(key, name)

        def work() -> None:
            told = request.model_dump()
            with service.scorer.transaction() as file:
                file.execute("UPDATE series SET rules = ? WHERE id = ?", [json.dumps(told), found.id])
                write_log(file, name, "rules", key.name, told)
            live.set_rules(service.scorer.series[name], AlarmRules(**told))

        await service.intake.do(work)
        return _threshold(service.live(key, name))


def _changing(app: FastAPI, service: "Service") -> None:
    @app.post(
        "/series/{name}/refit",
        summary="Learn anew from recent points; the old profile stays unless the new one is better",
        responses=errors(401, 403, 404, 409, 415, 422, 429) | {200: example(REFIT)},
        dependencies=bearer(),
    )
    async def refit(name: Name, key: Admin, request: RefitRequest | None = None) -> dict[str, Any]:
        found = service.live(key, name)
        before = found.profile
        if before is None:
            raise Refused(422, f"series {clip(name)} still learns for the first time; wait for more points")
        async with service.refits:
            judged = await asyncio.to_thread(
                refitting.judged, service.path, service.scorer.model, found, before,
                with_alarms=request is not None and request.alarmed,
            )  # fmt: skip
            work = partial(refitting.adopt, service.scorer, name, before, judged, key.name)
            return await service.intake.do(work)

    @app.delete(
        "/series/{name}",
        summary="Delete a series with its points and alarms",
        responses=errors(401, 403, 404, 429) | {200: example({"deleted": "server-7"})},
        dependencies=bearer(),
    )
    async def delete(name: Name, key: Admin) -> dict[str, str]:
        found = service.live(key, name)

        def work() -> None:
            with service.scorer.transaction() as file:
                file.execute("DELETE FROM series WHERE id = ?", [found.id])
                write_log(file, name, "deleted", key.name, {"points": found.count})
            service.scorer.series.pop(name, None)

        await service.intake.do(work)
        return {"deleted": name}


def _how(request: ThresholdRequest) -> dict[str, Any]:
    """For the log, where it is no number that is set. Raises Refused (422) for half of a request."""
    if request.windows is None and request.method is None and "threshold" in request.model_fields_set:
        return {}
    if request.windows is None or request.method is None or request.threshold is not None:
        raise Refused(422, 'send either "threshold", or "method": "labelled" with "windows"')
    return {"method": request.method, "windows": len(request.windows)}


def _threshold(found: Live) -> dict[str, Any]:
    learned = found.profile
    if learned is None and found.chosen is None and math.isinf(found.last_time):
        raise Refused(404, "the series has no points yet; send some")
    return {
        "threshold": found.threshold, "learned": learned and learned.threshold, "chosen": found.chosen,
        "how": learned and learned.chosen, "rules": vars(found.rules),
    }  # fmt: skip
