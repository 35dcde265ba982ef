"""/documents: list, upload, read, replace, delete. /jobs: how far an upload is."""

import asyncio
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from apps.answers.documents import check_id, check_metadata
from apps.answers.schemas import (
    DOCUMENT_EXAMPLE,
    JOB_EXAMPLE,
    DeletedReply,
    DocumentsReply,
    FullDocumentReply,
    JobReply,
    JobsReply,
)
from apps.answers.shelf import FIRST
from apps.answers.store import Entry, Store
from apps.answers.uploads import Job, Received, forget, received
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused, clip
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.answers.service import Service

MAX_PAGE = 500
MAX_WAIT = 20.0  # seconds

Collection = Annotated[str, Query(description="The collection.", max_length=100)]
Id = Annotated[str, Path(description="The document's id.", max_length=200)]
Metadata = Annotated[
    str, Query(description='What to filter by later, as JSON: {"language": "en"}.', max_length=20_000)
]
_FILES = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
_UPLOAD = {"requestBody": {"content": _FILES, "required": True}}
Reader = Annotated[Key, Depends(needs("read"))]
Writer = Annotated[Key, Depends(needs("write"))]


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""
    _reads(app, service)
    _jobs(app, service)
    _uploads(app, service)

    @app.delete(
        "/documents/{id}",
        summary="Delete a document: no answer that comes after this one's reply is read from it",
        response_model=DeletedReply,
        responses=errors(401, 403, 404, 429) | {200: example({"deleted": "harbour-guide"})},
        dependencies=bearer(),
    )
    async def delete(id: Id, key: Writer, collection: Collection = FIRST) -> dict[str, str]:
        store = await opened(service, key, collection)
        if not sound(id):
            raise no_document(id)
        service.audit.write(key.id, "delete", collection, "asked", id)
        found = await run_in_threadpool(store.delete, id)
        await service.batcher.settled()  # what was found before may still be being read
        service.audit.write(key.id, "delete", collection, "done" if found else "refused", id)
        if not found:
            raise no_document(id)
        return {"deleted": id}


def _reads(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/documents",
        summary="List the documents of a collection, by id",
        response_model=DocumentsReply,
        responses=errors(401, 404, 422, 429)
        | {200: example({"documents": [DOCUMENT_EXAMPLE], "next": None})},
        dependencies=bearer(),
    )
    async def documents(
        key: Reader,
        collection: Collection = FIRST,
        where: Metadata = "{}",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        after: Annotated[str, Query(description="`next` of the page before.", max_length=200)] = "",
    ) -> dict[str, Any]:
        store = await opened(service, key, collection)
        listed = await run_in_threadpool(store.entries, metadata_of(where))
        rest = sorted((one for one in listed if one.id > after), key=lambda one: one.id)
        more = len(rest) > limit
        return {
            "documents": [shown(one) for one in rest[:limit]],
            "next": rest[limit - 1].id if more else None,
        }

    @app.get(
        "/documents/{id}",
        summary="One document with its text",
        response_model=FullDocumentReply,
        responses=errors(401, 404, 429)
        | {200: example(DOCUMENT_EXAMPLE | {"passages": 12, "text": "The harbour. The lighthouse was…"})},
        dependencies=bearer(),
    )
    async def document(id: Id, key: Reader, collection: Collection = FIRST) -> dict[str, Any]:
        store = await opened(service, key, collection)
        found = await run_in_threadpool(store.get, id) if sound(id) else None
        if found is None:
            raise no_document(id)
        passages = await run_in_threadpool(store.passages, id)
        return shown(found[0]) | {"passages": len(passages), "text": found[1]}


def _jobs(app: FastAPI, service: "Service") -> None:
    @app.get(
        "/jobs/{id}",
        summary="How far an upload is",
        response_model=JobReply,
        responses=errors(401, 404, 422, 429) | {200: example(JOB_EXAMPLE)},
        dependencies=bearer(),
    )
    async def job(
        id: Annotated[str, Path(max_length=100)],
        key: Reader,
        wait: Annotated[
            float, Query(ge=0, le=MAX_WAIT, description="Answer when it is over, or after so many seconds.")
        ] = 0.0,
    ) -> dict[str, Any]:
        found = service.uploads.find(id)
        if found is None or not key.sees(found.collection):
            raise Refused(404, f"there is no upload {clip(id)}; after a restart, send the file again")
        until = time.monotonic() + wait
        while not found.over and time.monotonic() < until and not service.closing.is_set():
            await asyncio.sleep(0.05)
        return told(found)


def _uploads(app: FastAPI, service: "Service") -> None:
    @app.post(
        "/documents",
        summary="Upload one document or many",
        description="As a form with files, or as the file itself with its name in the query. The answer "
        "comes before they are indexed: ask /jobs how far they are.",
        status_code=202,
        response_model=JobsReply,
        responses=errors(400, 401, 403, 404, 408, 413, 422, 429, 503)
        | {202: example({"jobs": [JOB_EXAMPLE]})},
        dependencies=bearer(),
        openapi_extra=_UPLOAD,
    )
    async def upload(
        request: Request,
        key: Writer,
        collection: Collection = FIRST,
        name: Annotated[str | None, Query(description="Of a body that is the file itself.")] = None,
        metadata: Metadata = "{}",
    ) -> dict[str, Any]:
        service.shelf.check(key, collection)
        about = metadata_of(metadata)
        files = await taken(request, service, name)
        return queued(service, [job_of(one, collection, about, key, None) for one in files])

    @app.put(
        "/documents/{id}",
        summary="Add or replace the document of an id of your own",
        status_code=202,
        response_model=JobsReply,
        responses=errors(400, 401, 403, 404, 408, 413, 422, 429, 503)
        | {202: example({"jobs": [JOB_EXAMPLE]})},
        dependencies=bearer(),
        openapi_extra=_UPLOAD,
    )
    async def replace(
        id: Id,
        request: Request,
        key: Writer,
        collection: Collection = FIRST,
        name: Annotated[str | None, Query(description="Of a body that is the file itself.")] = None,
        metadata: Metadata = "{}",
    ) -> dict[str, Any]:
        service.shelf.check(key, collection)
        about = metadata_of(metadata)
        try:
            check_id(id)
        except InputError as error:
            raise Refused(422, str(error)) from error
        files = await taken(request, service, name)
        if len(files) > 1:
            forget(files)
            raise Refused(422, f"{len(files)} files for one id; send one")
        return queued(service, [job_of(files[0], collection, about, key, id)])


async def opened(service: "Service", key: Key, collection: str) -> Store:
    """The store of a collection that the key sees. Raises Refused (404)."""
    return await run_in_threadpool(service.shelf.store, service.shelf.check(key, collection))


async def taken(request: Request, service: "Service", name: str | None) -> list[Received]:
    """The files of the request. Raises Refused, also (503) where no more may be received or may wait."""
    service.uploads.check_room()
    if service.receiving.locked():
        raise Refused(503, "too many uploads are arriving; try again in 2 s", {"Retry-After": "2"})
    async with service.receiving:
        return await received(request, service.uploads.folder, name)


def job_of(one: Received, collection: str, metadata: dict[str, str], key: Key, id: str | None) -> Job:
    action = "add" if id is None else "update"
    return Job(collection, id, one.name, one.size, one.path, metadata, key.id, action)  # type: ignore[arg-type]


def queued(service: "Service", jobs: list[Job]) -> dict[str, Any]:
    """Hands the jobs on, or forgets their files. Raises Refused (503) where there is no room."""
    try:
        service.uploads.submit(jobs)
    except Refused:
        for job in jobs:
            job.path.unlink(missing_ok=True)
        raise
    return {"jobs": [told(job) for job in jobs]}


def told(job: Job) -> dict[str, Any]:
    """A job in the words of the API."""
    names = ("id", "collection", "document", "name", "state", "passages", "embedded", "error")
    return {name: getattr(job, name) for name in names} | {"bytes": job.size}


def shown(entry: Entry) -> dict[str, Any]:
    """A document in the words of the API."""
    return {name: value for name, value in asdict(entry).items() if name != "sha256"}


def sound(id: str) -> bool:
    """True where it may be an id."""
    try:
        check_id(id)
    except InputError:
        return False
    return True


def no_document(id: str) -> Refused:
    return Refused(404, f"there is no document {clip(id)} in this collection; GET /documents lists them")


def metadata_of(text: str) -> dict[str, str]:
    """Metadata out of the query. Raises Refused (422) for what is none."""
    try:
        found = json.loads(text or "{}")
        if not isinstance(found, dict):
            raise ValueError
        check_metadata(found)
    except InputError as error:
        raise Refused(422, str(error)) from error
    except (ValueError, RecursionError):
        raise Refused(422, 'metadata must be one JSON object of texts, such as {"language": "en"}') from None
    return found
