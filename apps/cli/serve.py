from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Engine, Threads, VariantName


def serve(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8080,
    rate: Annotated[int, typer.Option(help="Requests a minute for each client.", min=1)] = 120,
    open_without_key: Annotated[
        bool, typer.Option("--open-without-key", help="Let anybody in the network use it.")
    ] = False,
    engine: Engine = None,
    variant: VariantName = None,
    threads: Threads = 1,
) -> None:
    """Serve a bundle over HTTP, with a page to try it.

    POST /classify, GET /health; GET /docs tells the rest.

    Binds to loopback unless told otherwise. EDGEWISE_API_KEY in the environment asks every client for that
    key. Texts are never logged.
    """
    from apps.web.server import ServeConfig
    from apps.web.server import serve as run_server
    from runtimes.load import load

    model = load(bundle, engine=engine, variant=variant, threads=threads)
    run_server(model, ServeConfig(host=host, port=port, per_minute=rate, open_without_key=open_without_key))
