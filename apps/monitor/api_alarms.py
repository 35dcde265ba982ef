"""/alarms: list, one, acknowledge."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Query

from apps.monitor import alarm_rows
from apps.monitor.schemas import ALARM_EXAMPLE, AckRequest, AlarmReply, AlarmsReply
from apps.monitor.scoring import write_log
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused, clip

if TYPE_CHECKING:
    from apps.monitor.service import Service

Reader = Annotated[Key, Depends(needs("read"))]
Writer = Annotated[Key, Depends(needs("write"))]
Id = Annotated[str, Path(max_length=100, description="The alarm's id.")]


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""

    @app.get(
        "/alarms",
        summary="Alarms, the newest first",
        response_model=AlarmsReply,
        responses=errors(401, 404, 422, 429) | {200: example({"alarms": [ALARM_EXAMPLE]})},
        dependencies=bearer(),
    )
    async def alarms(
        key: Reader,
        series: Annotated[str | None, Query(max_length=100, description="Only of this one.")] = None,
        state: Annotated[Literal["all", "open", "unacknowledged"], Query()] = "all",
        before: Annotated[float | None, Query(description="Opened earlier than that: the next page.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> dict[str, Any]:
        if series is not None:
            service.live(key, series)
        names = [series] if series is not None else bound(key)
        found = await service.read(lambda file: alarm_rows.read(file, names, state, before, limit))
        return {"alarms": found}

    @app.get(
        "/alarms/{id}",
        summary="One alarm",
        response_model=AlarmReply,
        responses=errors(401, 404, 429) | {200: example(ALARM_EXAMPLE)},
        dependencies=bearer(),
    )
    async def alarm(id: Id, key: Reader) -> dict[str, Any]:
        return await get(id, key)

    @app.post(
        "/alarms/{id}/ack",
        summary="Acknowledge an alarm: who was first, when, and a note",
        response_model=AlarmReply,
        responses=errors(400, 401, 403, 404, 409, 415, 422, 429) | {200: example(ALARM_EXAMPLE)},
        dependencies=bearer(),
    )
    async def acknowledge(id: Id, request: AckRequest, key: Writer) -> dict[str, Any]:
        found = await get(id, key)

        def work() -> bool:
            with service.scorer.transaction() as file:
                done = alarm_rows.acknowledge(file, id, key.name, request.note, time.time())
                if done:
                    write_log(file, found["series"], "acknowledged", key.name, {"alarm": id})
            return done

        if not await service.intake.do(work):
            raise Refused(409, f"the alarm was acknowledged before, by {clip(found['acked_by'])}")
        return await get(id, key)

    async def get(id: str, key: Key) -> dict[str, Any]:
        found = await service.read(lambda file: alarm_rows.get(file, id))
        if found is None or not key.sees(found["series"]):
            raise Refused(404, f"there is no alarm {clip(id)}; GET /alarms lists yours")
        return found


def bound(key: Key) -> list[str] | None:
    """The series that the key is bound to; None: all of them."""
    return None if key.collections is None else sorted(key.collections)
