from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, emit
from runtimes.errors import InputError


def keys(
    documents: Annotated[
        Path, typer.Argument(help="The folder of `edgewise serve`: --documents or --series.")
    ],
    make: Annotated[str | None, typer.Option(help="Make a key with this name: who uses it.")] = None,
    role: Annotated[str, typer.Option(help="With --make: read, write or admin.")] = "read",
    collection: Annotated[
        list[str] | None,
        typer.Option(help="With --make: bind it to this one; repeat for several."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(help="With --make: bind it to this series; repeat for several."),
    ] = None,
    rate: Annotated[int | None, typer.Option(help="With --make: its own requests a minute.")] = None,
    revoke: Annotated[str | None, typer.Option(help="Revoke the key with this id.")] = None,
    json: Json = False,
) -> None:
    """Make, revoke or list the API keys of a folder of documents or series.

    A key is printed once, when it is made; only its hash is kept. As soon as one was made, the service asks
    for a key. What is revoked opens nothing from the next request on; no restart is needed.
    """
    from apps.web.keys import FILE, Keys

    if make is not None and revoke is not None:
        raise InputError("--make and --revoke are two commands; give one")
    if make is None and (role != "read" or collection or series or rate is not None):
        raise InputError("--role, --collection, --series and --rate go with --make NAME")
    if make is None and not (documents / FILE).is_file():
        raise InputError(f"{documents}: no keys were made here; --make NAME makes the first one")
    kept = Keys(documents)
    if make is not None:
        key, text = kept.make(make, role, collection, rate, series)
        if json:
            emit({"id": key.id, "name": key.name, "role": key.role, "key": text})
        else:
            print(text)
        return
    if revoke is not None:
        kept.revoke(revoke)
    if json:
        emit([{**asdict(key), "collections": _bound(key)} for key in kept.all()])
        return
    for key in kept.all():
        bound = ", ".join(_bound(key) or ["all"])
        state = f"revoked {key.revoked}" if key.revoked else f"made {key.made}"
        rate_told = f"  {key.per_minute}/min" if key.per_minute else ""
        print(f"{key.id}  {key.role:5}  {bound}{rate_told}  {state}  {key.name}")


def _bound(key: object) -> list[str] | None:
    bound = getattr(key, "collections", None)
    return None if bound is None else sorted(bound)
