"""/collections: list, create, delete."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Path
from starlette.concurrency import run_in_threadpool

from apps.answers.schemas import (
    COLLECTIONS_EXAMPLE,
    CollectionReply,
    CollectionRequest,
    CollectionsReply,
    DeletedReply,
)
from apps.web.callers import bearer, needs
from apps.web.errors import errors, example
from apps.web.keys import Key
from apps.web.replies import Refused
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.answers.service import Service

Admin = Annotated[Key, Depends(needs("admin"))]
_EMPTY = {"name": "manuals", "documents": 0, "passages": 0}


def add(app: FastAPI, service: "Service") -> None:
    """The routes over `service`."""

    @app.get(
        "/collections",
        summary="The collections that your key sees, and what it may do there",
        response_model=CollectionsReply,
        responses=errors(401, 429) | {200: example(COLLECTIONS_EXAMPLE)},
        dependencies=bearer(),
    )
    async def collections(key: Annotated[Key, Depends(needs("read"))]) -> dict[str, Any]:
        names = service.shelf.seen_by(key)
        found = await run_in_threadpool(lambda: [told(service, name) for name in names])
        return {"role": key.role, "collections": [one for one in found if one is not None]}

    @app.post(
        "/collections",
        summary="Make an empty collection",
        status_code=201,
        response_model=CollectionReply,
        responses=errors(400, 401, 403, 409, 415, 422, 429) | {201: example(_EMPTY)},
        dependencies=bearer(),
    )
    async def create(request: CollectionRequest, key: Admin) -> dict[str, Any]:
        name = request.name
        if not key.sees(name):
            raise Refused(403, "this key is bound to other collections; ask for one that may make this one")
        service.audit.write(key.id, "create", clipped(name), "asked")
        try:
            await run_in_threadpool(service.shelf.create, name)
        except InputError as error:
            raise Refused(422, str(error)) from error
        service.audit.write(key.id, "create", name, "done")
        return _EMPTY | {"name": name}

    @app.delete(
        "/collections/{name}",
        summary="Delete a collection with all its documents",
        response_model=DeletedReply,
        responses=errors(401, 403, 404, 429) | {200: example({"deleted": "manuals"})},
        dependencies=bearer(),
    )
    async def delete(name: Annotated[str, Path(max_length=100)], key: Admin) -> dict[str, str]:
        service.shelf.check(key, name)
        service.audit.write(key.id, "drop", name, "asked")
        gone, store = service.shelf.hide(name)
        await service.batcher.settled()
        await run_in_threadpool(service.shelf.discard, name, gone, store)
        service.audit.write(key.id, "drop", name, "done")
        return {"deleted": name}


def told(service: "Service", name: str) -> dict[str, Any] | None:
    """A collection in the words of the API; None where it was deleted meanwhile."""
    try:
        about = service.shelf.store(name).describe()
    except Refused:
        return None
    return {"name": name, "documents": about["documents"], "passages": about["passages"]}


def clipped(name: str) -> str:
    """A name that may be none, bounded, for the audit."""
    from apps.web.keys import COLLECTION

    return name if COLLECTION.fullmatch(name) else "?"
