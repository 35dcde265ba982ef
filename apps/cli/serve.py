from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Engine, Threads, VariantName
from runtimes.errors import InputError


def serve(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8080,
    rate: Annotated[int, typer.Option(help="Requests a minute for each client.", min=1)] = 120,
    open_without_key: Annotated[
        bool, typer.Option("--open-without-key", help="Let anybody in the network use it.")
    ] = False,
    documents: Annotated[
        Path | None, typer.Option(help="With a reader: the folder of its collections and keys.")
    ] = None,
    embedder: Annotated[Path | None, typer.Option(help="With --documents: the embedder's bundle.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="With --documents: what was learned about confidence, as JSON.")
    ] = None,
    engine: Engine = None,
    variant: VariantName = None,
    threads: Threads = 1,
) -> None:
    """Serve a bundle over HTTP, with a page to try it.

    A classifier: POST /classify, GET /health; GET /docs tells the rest. EDGEWISE_API_KEY in the environment
    asks every client for that key.

    A reader with --documents and --embedder: POST /ask, /documents, /collections; `edgewise keys` makes its
    keys.

    Binds to loopback unless told otherwise. Texts and questions are never logged.
    """
    if documents is None:
        if embedder or calibration:
            raise InputError("--embedder and --calibration go with --documents FOLDER")
        from apps.web.server import ServeConfig
        from apps.web.server import serve as run_server
        from runtimes.load import load

        model = load(bundle, engine=engine, variant=variant, threads=threads)
        task = model.describe()["task"]
        if task != "text-classification":
            raise InputError(f"{bundle}: {task} is not served alone; a reader is with --documents FOLDER")
        run_server(
            model, ServeConfig(host=host, port=port, per_minute=rate, open_without_key=open_without_key)
        )
        return
    if embedder is None or engine or variant:
        raise InputError("--documents needs --embedder BUNDLE, and takes the bundles' own default variants")
    from apps.answers.models import open_models
    from apps.answers.pack import read_calibration
    from apps.answers.service import AnswersConfig
    from apps.answers.service import serve as run_answers

    learned = read_calibration(calibration) if calibration else None
    models = open_models(bundle, embedder, threads, learned)
    config = AnswersConfig(host=host, port=port, per_minute=rate, open_without_key=open_without_key)
    run_answers(documents, models, config)
