"""The service over a folder of collections: questions, documents, collections, page, figures."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from apps.answers import api_ask, api_collections, api_documents
from apps.answers.batcher import Batcher
from apps.answers.door import KNOWN, door
from apps.answers.indexing import Indexing
from apps.answers.models import Ask, Models
from apps.answers.shelf import Shelf
from apps.answers.store import SqliteStore
from apps.answers.uploads import Uploads
from apps.web.audit import Audit
from apps.web.config import check_bind
from apps.web.folder import hold
from apps.web.guard import guarded
from apps.web.keys import Keys
from apps.web.listening import listen, run
from apps.web.metrics import SECONDS, Metrics, counted
from apps.web.rate import RateLimit
from apps.web.reference import reference
from apps.web.replies import Wants, add_error_handlers
from runtimes.ask import Answered
from runtimes.errors import InputError

COUNTERS = {
    "requests": "Requests by route and status.",
    "questions": "Questions by outcome.",
    "uploads": "Uploaded documents by outcome.",
}
HISTOGRAMS = {
    "question_seconds": ("Seconds from a question's arrival to its answer.", SECONDS),
    "batch_questions": ("Questions that one call of the models answered.", (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)),
    "upload_seconds": ("Seconds from an upload's turn to its end.", SECONDS),
}
RECEIVING = 8  # uploads that arrive at the same time
PAGE = Path(__file__).parent / "page"
LOOK = Path(__file__).parents[1] / "web" / "page"  # style sheet, icon and helpers of all pages
WANTS = {
    "/ask": Wants('{"question": "…"}', '{"question": "…"}', '"question", "collection", "where", "k"'),
    "/collections": Wants('{"name": "…"}', '{"name": "…"}', '"name"'),
}


@dataclass(frozen=True)
class AnswersConfig:
    """Address and limits. `queue` questions may wait and `batch` of them are answered at once; `uploads`
    documents may wait. Raises InputError for a value that cannot work."""

    host: str = "127.0.0.1"
    port: int = 8080
    per_minute: int = 120
    queue: int = 64
    batch: int = 8
    uploads: int = 64
    max_upload_bytes: int = 32 << 20
    open_without_key: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port} is outside 0 to 65535; choose one such as 8080")
        for name in ("per_minute", "queue", "batch", "uploads", "max_upload_bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, and must be at least 1")


class Service:
    """All that the routes share. Raises InputError where another service has the folder."""

    def __init__(self, folder: Path, models: Models, config: AnswersConfig) -> None:
        self.folder, self.models, self.config = folder, models, config
        self.started = time.monotonic()
        self.closing = threading.Event()
        self.metrics, self.indexing = Metrics(COUNTERS, HISTOGRAMS), Indexing(self)
        with contextlib.ExitStack() as opened:
            opened.enter_context(hold(folder))
            self.keys = opened.enter_context(contextlib.closing(Keys(folder)))
            self.audit = opened.enter_context(contextlib.closing(Audit(folder)))
            self.shelf = opened.enter_context(contextlib.closing(Shelf(folder, self._store, models.digest)))
            self.opened = opened.pop_all()
        self.batcher: Batcher[Ask, Answered] = Batcher(self._answers, config.batch, config.queue)
        self.batcher.seen = lambda size: self.metrics.see("batch_questions", size)
        self.uploads = Uploads(folder, self.indexing.work, config.uploads)
        for name in self.shelf.stale:
            self.uploads.pool.submit(self.indexing.reindex, name)
        self.uploads.finished, self.uploads.broken = self.indexing.finished, self.indexing.broken

        self.receiving = asyncio.Semaphore(RECEIVING)
        self.metrics.gauges = {
            "questions_waiting": ("Questions that wait.", lambda: len(self.batcher.queue)),
            "uploads_waiting": ("Uploads that are not over.", self.uploads.count),
            "collections": ("Collections.", lambda: len(self.shelf.names())),
            "uptime_seconds": ("Seconds since the start.", lambda: time.monotonic() - self.started),
        }

    def _store(self, path: Path) -> SqliteStore:
        return SqliteStore(path, self.indexing.embed, self.models.digest)

    def _answers(self, asks: list[Ask]) -> list[Answered]:
        return self.models.answers(asks, self.shelf)

    def close(self) -> None:
        """Ends what runs and leaves the folder to others."""
        self.closing.set()
        self.batcher.close()
        self.uploads.close()
        self.opened.close()


def create_app(
    folder: Path,
    models: Models,
    config: AnswersConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The ASGI application over `folder`, with every limit of `config` in force. `clock` is for tests."""
    config = config or AnswersConfig()
    service = Service(folder, models, config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="edgewise: answers",
        description=about(config),
        version="1",
        docs_url=None,  # FastAPI's page loads scripts from a CDN: offline it is empty, and the CSP forbids it
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    admit = door(service.keys, RateLimit(config.per_minute, clock), config.max_upload_bytes)
    app.add_middleware(guarded, host=config.host, admit=admit, known=KNOWN)
    app.add_middleware(counted, metrics=service.metrics, known=KNOWN)  # outermost: what is refused counts too
    add_error_handlers(app, WANTS)
    for part in (api_ask, api_documents, api_collections):
        part.add(app, service)
    add_pages(app)
    return app


def add_pages(app: FastAPI) -> None:
    """The page, its files, and the reference at /docs."""
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.mount("/look", StaticFiles(directory=LOOK), name="look")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(reference(app.openapi(), str(request.base_url).rstrip("/"), "/look"))


def about(config: AnswersConfig) -> str:
    """The description in the OpenAPI document, with the limits that hold here."""
    return (
        "Answers from your own documents, each with the place where it was read. Questions are answered and "
        "forgotten, never logged. Unless a key has its own rate it may ask "
        f"{config.per_minute:,} times a minute; an upload may have {config.max_upload_bytes:,} bytes."
    )


def serve(folder: Path, models: Models, config: AnswersConfig | None = None) -> None:
    """Serves until interrupted. Raises InputError where the address cannot or should not be bound."""
    config = config or AnswersConfig()
    with contextlib.closing(Keys(folder)) as keys:
        allowed = keys.needed() or config.open_without_key
    check_bind(config.host, allowed, f"make one with `edgewise keys {folder} --make NAME --role admin`")
    listener = listen(config.host, config.port)
    app = create_app(folder, models, config)
    models.reader("Is this the first question?", "The first answer is the slowest.")  # so it is nobody's
    run(app, listener, config.host)
