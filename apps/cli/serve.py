from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Engine, Threads, VariantName
from runtimes.errors import InputError


def serve(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8080,
    rate: Annotated[
        int | None, typer.Option(help="Requests a minute for each client; default 120.", min=1)
    ] = None,
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
    series: Annotated[
        Path | None, typer.Option(help="With a detector: the folder of its series, alarms and keys.")
    ] = None,
    private_webhooks: Annotated[
        bool, typer.Option("--private-webhooks", help="With --series: alerts may go to private addresses.")
    ] = False,
    engine: Engine = None,
    variant: VariantName = None,
    threads: Threads = 1,
) -> None:
    """Serve a bundle over HTTP, with a page to try it.

    A classifier: POST /classify, GET /health; GET /docs tells the rest. EDGEWISE_API_KEY in the environment
    asks every client for that key.

    A reader with --documents and --embedder: POST /ask, /documents, /collections; `edgewise keys` makes its
    keys.

    A detector with --series: POST /points, GET /series, /alarms and more, with a page to watch them;
    `edgewise keys` makes its keys. --rate is 6000 there unless it is given.

    Binds to loopback unless told otherwise. Texts and questions are never logged.
    """
    limits = {} if rate is None else {"per_minute": rate}
    address = {"host": host, "port": port, "open_without_key": open_without_key, **limits}
    if series is not None:
        if documents or embedder or calibration:
            raise InputError("--series goes with a detector; leave --documents and what belongs to it out")
        _monitor(bundle, series, private_webhooks, address, engine, variant, threads)
        return
    if private_webhooks:
        raise InputError("--private-webhooks goes with --series FOLDER")
    if documents is None:
        if embedder or calibration:
            raise InputError("--embedder and --calibration go with --documents FOLDER")
        _classifier(bundle, address, engine, variant, threads)
        return
    if embedder is None or engine or variant:
        raise InputError("--documents needs --embedder BUNDLE, and takes the bundles' own default variants")
    _answers(bundle, documents, embedder, calibration, address, threads)


def _classifier(
    bundle: Path, address: dict[str, Any], engine: str | None, variant: str | None, threads: int
) -> None:
    from apps.web.server import ServeConfig
    from apps.web.server import serve as run_server
    from runtimes.load import load

    model = load(bundle, engine=engine, variant=variant, threads=threads)
    task = model.describe()["task"]
    if task != "text-classification":
        raise InputError(
            f"{bundle}: {task} is not served alone; a reader is with --documents FOLDER, "
            "a detector with --series FOLDER"
        )
    run_server(model, ServeConfig(**address))


def _answers(
    bundle: Path,
    documents: Path,
    embedder: Path,
    calibration: Path | None,
    address: dict[str, Any],
    threads: int,
) -> None:
    from apps.answers.models import open_models
    from apps.answers.pack import read_calibration
    from apps.answers.service import AnswersConfig
    from apps.answers.service import serve as run_answers

    learned = read_calibration(calibration) if calibration else None
    run_answers(documents, open_models(bundle, embedder, threads, learned), AnswersConfig(**address))


def _monitor(
    bundle: Path,
    series: Path,
    private_webhooks: bool,
    address: dict[str, Any],
    engine: str | None,
    variant: str | None,
    threads: int,
) -> None:
    from apps.monitor.config import MonitorConfig
    from apps.monitor.service import serve as run_monitor
    from apps.web.identity import digest_of
    from runtimes.load import load

    config = MonitorConfig(private_webhooks=private_webhooks, **address)
    detector = load(bundle, engine=engine, variant=variant, threads=threads)
    run_monitor(series, detector, digest_of(bundle), config)
