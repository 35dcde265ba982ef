"""The web service over one loaded model: POST /classify, GET /health, the page and its reference."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.security import HTTPBearer
from starlette.staticfiles import StaticFiles

from apps.web.config import ServeConfig, refuse_open_bind
from apps.web.guard import door, guarded
from apps.web.listening import listen, run
from apps.web.rate import RateLimit
from apps.web.reference import reference
from apps.web.replies import Refused, Wants, add_error_handlers
from apps.web.schemas import (
    CLASSIFY_EXAMPLE,
    HEALTH_EXAMPLE,
    REQUEST_EXAMPLES,
    ClassifyReply,
    ClassifyRequest,
    ErrorReply,
    HealthReply,
    Limits,
    texts_of,
)
from apps.web.worker import Worker
from runtimes.errors import BundleError, EngineError, InputError
from runtimes.tasks.classify import Classifier

PAGE = Path(__file__).parent / "page"
CLASSIFY = "/classify"
WANTS = Wants('{"text": "…"}', '{"text": "…"} or {"texts": ["…"]}', '"text" or "texts", "top_k", "explain"')

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "Not JSON"},
    401: {"model": ErrorReply, "description": "API key missing or wrong"},
    408: {"model": ErrorReply, "description": "Body too slow"},
    413: {"model": ErrorReply, "description": "Body too large"},
    415: {"model": ErrorReply, "description": "Not application/json"},
    422: {"model": ErrorReply, "description": "Not a request that can be answered"},
    429: {"model": ErrorReply, "description": "Over the rate; Retry-After says how long"},
    503: {"model": ErrorReply, "description": "Queue full; Retry-After says how long"},
}


def create_app(
    model: Classifier, config: ServeConfig | None = None, clock: Callable[[], float] = time.monotonic
) -> FastAPI:
    """The ASGI application over `model`, with every limit of `config` in force. `clock` is for tests."""
    config = config or ServeConfig()
    worker = Worker(config.queue)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(
        title=f"edgewise: {model.describe()['bundle']}",
        description=about(limits_of(model, config), config),
        version="1",
        docs_url=None,  # FastAPI's page loads scripts from a CDN: offline it is empty, and the CSP forbids it
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    limiter = RateLimit(config.per_minute, clock)
    admit = door(CLASSIFY, config.api_key, limiter, config.max_body_bytes)
    app.add_middleware(guarded, host=config.host, admit=admit, known={CLASSIFY})
    add_error_handlers(app, {CLASSIFY: WANTS})
    add_api(app, model, config, worker)
    add_pages(app)
    return app


def add_api(app: FastAPI, model: Classifier, config: ServeConfig, worker: Worker) -> None:
    """POST /classify and GET /health."""
    limits = limits_of(model, config)
    info = model.describe()
    started = time.monotonic()
    # The guard checks the key; this only says so in the OpenAPI document.
    security = [Depends(HTTPBearer(auto_error=False))] if config.api_key else []

    @app.post(
        CLASSIFY,
        summary="Classify one text or several",
        response_model=ClassifyReply,
        response_model_exclude_none=True,
        responses=ERRORS | {200: example(CLASSIFY_EXAMPLE)},
        dependencies=security,
    )
    async def classify(
        request: Annotated[ClassifyRequest, Body(openapi_examples=REQUEST_EXAMPLES)],
    ) -> dict[str, Any]:
        texts = texts_of(request, limits)
        answers, latency_ms = await worker.run(lambda: answers_for(model, texts, request))
        return {"answers": answers, "model": info, "latency_ms": latency_ms}

    @app.get(
        "/health",
        summary="What runs here, and its limits",
        response_model=HealthReply,
        responses={200: example(HEALTH_EXAMPLE)},
    )
    async def health() -> dict[str, Any]:
        return {
            "ready": worker.open,
            "uptime_s": round(time.monotonic() - started, 3),
            "model": info,
            "labels": list(model.labels),
            "limits": asdict(limits)
            | {"max_body_bytes": config.max_body_bytes, "per_minute": config.per_minute},
            "key_required": config.api_key is not None,
        }


def add_pages(app: FastAPI) -> None:
    """The page, its files, and the reference at /docs."""
    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(reference(app.openapi(), str(request.base_url).rstrip("/")))


def about(limits: Limits, config: ServeConfig) -> str:
    """The description in the OpenAPI document, with the limits that hold here."""
    return (
        "Text classification by one bundle. Texts are answered and forgotten, never logged. "
        f"A text may have {limits.max_chars:,} characters, a request {limits.max_batch:,} texts and "
        f"{config.max_body_bytes:,} bytes, and a client {config.per_minute:,} requests a minute."
    )


def example(value: dict[str, Any]) -> dict[str, Any]:
    """An answer's example in OpenAPI's form. Beside the schema, because pydantic would sort its keys."""
    return {"content": {"application/json": {"example": value}}}


def limits_of(model: Classifier, config: ServeConfig) -> Limits:
    """The model's limits, tightened by the config."""
    chars, batch = model.limits["max_chars"], model.limits["max_batch"]
    return Limits(min(config.max_chars or chars, chars), min(config.max_batch or batch, batch))


def answers_for(
    model: Classifier, texts: list[str], request: ClassifyRequest
) -> tuple[list[dict[str, Any]], float]:
    """The answers and the milliseconds in the model. Runs in the worker's thread.

    Raises Refused (422) where the model refuses a text.
    """
    begin = time.perf_counter()
    try:
        answers = [asdict(answer) for answer in model(texts, top_k=request.top_k)]
        if request.explain:
            answers[0]["explanation"] = asdict(model.explain(texts[0]))
    except (BundleError, EngineError):
        raise
    except InputError as error:
        raise Refused(422, str(error)) from error
    return answers, round((time.perf_counter() - begin) * 1000, 3)


def serve(model: Classifier, config: ServeConfig | None = None) -> None:
    """Serves until interrupted. Raises InputError where the address cannot or should not be bound."""
    config = config or ServeConfig()
    refuse_open_bind(config)
    model("The first answer is the slowest.")  # so that it is nobody's request
    run(create_app(model, config), listen(config.host, config.port), config.host)
