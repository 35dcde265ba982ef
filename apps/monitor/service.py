"""The service over a folder: points in, scores and alarms out, alerts sent, page, figures."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import FileResponse, HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from apps.monitor import api_about, api_alarms, api_points, api_series, api_webhooks, schema
from apps.monitor.alerts import Alerts
from apps.monitor.charts import CHARTS, find_charts
from apps.monitor.config import MonitorConfig
from apps.monitor.door import KNOWN, door
from apps.monitor.intake import Intake
from apps.monitor.live import Live
from apps.monitor.refitting import InTurn
from apps.monitor.retention import EVERY_S, Retention
from apps.monitor.scoring import Scorer
from apps.web.config import check_bind
from apps.web.folder import hold
from apps.web.guard import guarded, where_it_broke
from apps.web.keys import Key, Keys
from apps.web.listening import listen, run
from apps.web.metrics import SECONDS, Metrics, counted
from apps.web.rate import RateLimit
from apps.web.reference import reference
from apps.web.replies import Refused, Wants, add_error_handlers, clip
from runtimes.tasks.detect import Detector

log = logging.getLogger("edgewise.web")
T = TypeVar("T")
PAGE = Path(__file__).parent / "page"
LOOK = Path(__file__).parents[1] / "web" / "page"  # style sheet, icon and helpers of all pages
COUNTERS = {
    "requests": "Requests by route and status.",
    "points": "Points by what became of them.",
    "alerts": "Attempts to send an alert, by outcome.",
}
HISTOGRAMS = {
    "ingest_seconds": ("Seconds from a request's points to their place on the disk.", SECONDS),
    "commit_points": ("Points of one transaction.", (1.0, 10.0, 100.0, 1000.0, 5000.0)),
    "commit_seconds": ("Seconds of one transaction, scores with it.", SECONDS),
}
WANTS = {"/webhooks": Wants('{"url": "…"}', '{"url": "…"}', '"url", "secret", "series", "cool_down_s"')}


class Service:
    """All that the routes share. Raises InputError where another service has the folder."""

    def __init__(
        self, folder: Path, model: Any, identity: str, config: MonitorConfig, limiter: RateLimit
    ) -> None:
        self.config, self.limiter, self.started = config, limiter, time.monotonic()
        self.path = folder / schema.FILE
        self.metrics = Metrics(COUNTERS, HISTOGRAMS)
        self.sockets: set[WebSocket] = set()
        self.charts: Path | None = None  # until it is found
        with contextlib.ExitStack() as opened:
            opened.enter_context(hold(folder))
            self.keys = opened.enter_context(contextlib.closing(Keys(folder)))
            file = opened.enter_context(contextlib.closing(schema.prepare(self.path)))
            self.scorer = Scorer(file, shared(model), config, identity)
            self.opened = opened.pop_all()
        self.intake = Intake(self.scorer, config.waiting_points, config.batch_points)
        self.intake.seen = self._see
        self.alerts = Alerts(self.path, self.intake, config.private_webhooks)
        self.alerts.seen = lambda outcome: self.metrics.add("alerts", outcome=outcome)
        self.scorer.told = self.alerts.told
        self.retention = Retention(self.scorer)
        self.refits = asyncio.Lock()  # one at a time
        self.tasks: list[asyncio.Task[None]] = []
        self.metrics.gauges = {
            "series": ("Series.", lambda: len(self.scorer.series)),
            "waiting_points": ("Points that wait to be stored.", lambda: self.intake.waiting),
            "scored_points": ("Points scored since the start.", lambda: self.scorer.scored),
            "unscored_points": ("Points that could not be scored.", lambda: self.scorer.unscored),
            "alarms": ("Alarms opened since the start.", lambda: self.scorer.opened),
            "removed_points": ("Points that were too old or too many.", lambda: self.retention.removed),
            "uptime_seconds": ("Seconds since the start.", lambda: time.monotonic() - self.started),
        }

    def live(self, key: Key, name: str) -> Live:
        """The series. Raises Refused (404), alike where it is not there and where it is not for this key."""
        found = self.scorer.series.get(name)
        if found is None or not key.sees(name):
            raise Refused(404, f"there is no series {clip(name)}; GET /series lists yours")
        return found

    def told(self, live: Live) -> dict[str, Any]:
        """A series in the words of the API."""
        return live.told(time.time()) | {"warm_up": self.scorer.warm_up}

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads from the file, off the event loop."""

        def call() -> T:
            with contextlib.closing(schema.reading(self.path)) as file:
                return work(file)

        return await run_in_threadpool(call)

    def start(self) -> None:
        """What runs beside the requests. On the event loop."""
        self.tasks = [
            asyncio.create_task(work) for work in (self.alerts.run(), self._retain(), self._find_charts())
        ]
        self.intake.wake()

    async def close(self) -> None:
        """Writes what waits, ends what runs, and leaves the folder to others."""
        for socket in list(self.sockets):
            with contextlib.suppress(RuntimeError):
                await socket.close(1012, "the service is stopping; connect again in a moment")
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.alerts.close()
        await self.intake.close()
        self.opened.close()

    async def _find_charts(self) -> None:
        self.charts = await asyncio.to_thread(find_charts)

    async def _retain(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.intake.do(self.retention.turn)
            except Exception as error:
                log.error("old points were not removed: %s", where_it_broke(error))

    def _see(self, points: int, seconds: float) -> None:
        self.metrics.see("commit_points", points)
        self.metrics.see("commit_seconds", seconds)


def shared(model: Any) -> Any:
    """The model with a session that several threads may ask."""
    return replace(model, session=InTurn(model.session)) if isinstance(model, Detector) else model


def create_app(
    folder: Path,
    model: Any,
    identity: str,
    config: MonitorConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The ASGI application over `folder`, with every limit of `config` in force.

    `identity` names the model by its content: another one's profiles are learned again. `clock` is for tests.
    """
    config = config or MonitorConfig()
    limiter = RateLimit(config.per_minute, clock)
    service = Service(folder, model, identity, config, limiter)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()

    app = FastAPI(
        title="edgewise: monitor",
        description=about(config),
        version="1",
        docs_url=None,  # FastAPI's page loads scripts from a CDN: offline it is empty, and the CSP forbids it
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    admit = door(service.keys, limiter, config.max_body_bytes)
    app.add_middleware(guarded, host=config.host, admit=admit, known=KNOWN)
    app.add_middleware(counted, metrics=service.metrics, known=KNOWN)  # outermost: refused ones count too
    add_error_handlers(app, WANTS)
    for part in (api_points, api_series, api_alarms, api_webhooks, api_about):
        part.add(app, service)
    add_pages(app, service)
    return app


def add_pages(app: FastAPI, service: Service) -> None:
    """The page, its files, its charts, and the reference at /docs."""
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.mount("/look", StaticFiles(directory=LOOK), name="look")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/charts/{name}", include_in_schema=False)
    async def charts(name: str) -> FileResponse:
        if service.charts is None or name not in CHARTS:
            raise Refused(404, "the charts are not here; npm fetches them once, over the network")
        return FileResponse(service.charts / name, headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(reference(app.openapi(), str(request.base_url).rstrip("/"), "/look"))


def about(config: MonitorConfig) -> str:
    """The description in the OpenAPI document, with the limits that hold here."""
    return (
        "Finds what is unusual in series of numbers as they come. A point is acknowledged when it is on the "
        f"disk and scored. A request may have {config.request_points:,} points and {config.max_body_bytes:,} "
        f"bytes; unless a key has its own rate it may ask {config.per_minute:,} times a minute. WebSocket "
        '/ingest takes frames as the bodies of POST /points, with an "id" that the reply repeats.'
    )


def serve(folder: Path, model: Any, identity: str, config: MonitorConfig | None = None) -> None:
    """Serves until interrupted. Raises InputError where the address cannot or should not be bound."""
    config = config or MonitorConfig()
    with contextlib.closing(Keys(folder)) as keys:
        allowed = keys.needed() or config.open_without_key
    check_bind(config.host, allowed, f"make one with `edgewise keys {folder} --make NAME --role admin`")
    listener = listen(config.host, config.port)
    app = create_app(folder, model, identity, config)
    run(app, listener, config.host, config.max_body_bytes)
